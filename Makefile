# Everything runs through uv, which makes the environment on first use.
.PHONY: test slow lint format wheel docs bench guard

test:  ## what CI runs next to make lint and tools/check_wheel.py
	uv run --group dev pytest

slow:  ## the long tests too
	uv run --group dev pytest -m "slow or not slow"

lint:
	uv run --group dev ruff check
	uv run --group dev ruff format --check
	uv run --group dev mypy

format:
	uv run --group dev ruff check --fix
	uv run --group dev ruff format

wheel:  ## builds it in dist/ after checking what it would carry
	uv run --group dev python tools/check_wheel.py
	uv build --wheel

docs:  ## the documentation site, in site/
	uv run --group docs mkdocs build --strict

bench:  ## the figures of docs/benchmarks.md; needs the photo folder in SEIT_TEST_DATA
	uv run python tools/bench/job.py --json

guard:  ## fails when an inner loop lost more than a fifth against its peer
	uv run python tools/bench/guard.py
