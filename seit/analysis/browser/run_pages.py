"""Pages of runs: all of them over each other, and one with its confusion and mistakes."""

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seit.analysis.browser.answers import html, number_of
from seit.analysis.browser.query import Query
from seit.analysis.browser.shown_runs import ShownRun, charts
from seit.analysis.browser.site import Site
from seit.errors import SeitError, UsageError

MOST_LINES = 12
"""Most runs drawn over each other."""
_SANDBOX = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "Cache-Control": "no-store",
}
"""A report may be a stranger's: it is shown without scripts, and apart from these pages."""


class RunPages:
    """Pages of runs."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def routes(self) -> list[Route]:
        """Return the addresses of these pages."""
        return [
            Route("/runs", self.runs),
            Route("/curves", self.curves),
            Route("/run/{number}", self.run),
            Route("/run/{number}/report", self.report),
        ]

    def runs(self, request: Request) -> Response:  # noqa: ARG002
        """Answer with a list of the runs and their curves."""
        if not self.site.runs:
            raise UsageError("no run is open; start `seit view RUN`")
        rows = [
            (number, run, run.status, run.main_figure) for number, run in enumerate(self.site.runs)
        ]
        return html(self.site, "runs.html.j2", {"rows": rows, "most": MOST_LINES})

    def curves(self, request: Request) -> Response:
        """Answer with curves: of one run, or of the first ones over each other."""
        text = request.query_params.get("run", "")
        shown = [self._run_of(text)] if text else list(self.site.runs[:MOST_LINES])
        metrics, failures = {}, []
        for run in shown:
            try:
                metrics[run.name if len(shown) > 1 else ""] = run.metrics()
            except SeitError as error:
                failures.append(str(error))
        drawn = charts(metrics)
        values = {
            "charts": drawn,
            "failures": failures,
            "is_done": all(run.is_finished for run in shown),
        }
        return html(self.site, "curves.html.j2", values)

    def run(self, request: Request) -> Response:
        """Answer with everything about a run."""
        number = request.path_params["number"]
        run, site = self._run_of(number), self.site
        own = site.runs.index(run)
        split = run.evaluated_split(site.store) if site.has_store and run.is_finished else None

        def address(true: int, predicted: int) -> str:
            query = Query(split=split or "", label=true, predicted=predicted, run=own)
            return query.address()

        confusion: Markup | None = run.confusion(address if split else None)
        return html(
            site,
            "run.html.j2",
            {
                "run": run,
                "number": number,
                "status": run.status,
                "tiles": run.tiles(),
                "confusion": confusion,
                "tasks": run.tasks(),
                "ledger": run.ledger(),
                "mistakes": Query(split=split, wrong=True, run=own).address() if split else "",
                "is_pretraining": run.is_pretraining,
                "has_report": run.report() is not None,
            },
        )

    def report(self, request: Request) -> Response:
        """Answer with the run's own report, in a sandbox."""
        data = self._run_of(request.path_params["number"]).report()
        if data is None:
            raise UsageError("this run has no report yet")
        return Response(data, 200, _SANDBOX, "text/html; charset=utf-8")

    def _run_of(self, text: str) -> ShownRun:
        number = number_of(text, len(self.site.runs))
        if number is None:
            raise UsageError(f"there are {len(self.site.runs)} runs, numbered from 0")
        return self.site.runs[number]
