"""The pages of a server, by address."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from seit.analysis.browser.answers import explain
from seit.analysis.browser.browse import BrowsePages
from seit.analysis.browser.codes import CodePages
from seit.analysis.browser.pages import STATIC, static_file
from seit.analysis.browser.run_pages import RunPages
from seit.analysis.browser.samples import SamplePages
from seit.analysis.browser.site import Site
from seit.errors import SeitError, UsageError


def make_application(site: Site) -> Starlette:
    """Return the ASGI application of a site; `guard.Guard` goes before it."""

    def start(request: Request) -> Response:  # noqa: ARG001
        return RedirectResponse("/browse" if site.has_store else "/runs", status_code=303)

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        # Renewed with the package, so never kept for long.
        headers = {"Cache-Control": "private, max-age=300"}
        return Response(static_file(name), 200, headers, STATIC[name])

    def failed(request: Request, error: Exception) -> Response:
        return explain(site, request, error)

    def missing(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return explain(site, request, UsageError("there is no such page; go back to the start"))

    routes = [
        Route("/", start),
        Route("/static/{name}", static),
        *BrowsePages(site).routes(),
        *SamplePages(site).routes(),
        *CodePages(site).routes(),
        *RunPages(site).routes(),
    ]
    return Starlette(routes=routes, exception_handlers={SeitError: failed, HTTPException: missing})
