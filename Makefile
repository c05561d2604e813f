# Everything runs through uv, which makes the environment on first use.
.PHONY: test slow lint format wheel bench

test:  ## what CI runs
	uv run pytest

slow:  ## the long tests too
	uv run pytest -m "slow or not slow"

lint:
	uv run ruff check
	uv run ruff format --check
	uv run mypy

format:
	uv run ruff check --fix
	uv run ruff format

wheel:
	uv build --wheel

bench:  ## the figures of docs/benchmarks.md; needs the photo folder in SEIT_TEST_DATA
	uv run python tools/bench_main_job.py --json
