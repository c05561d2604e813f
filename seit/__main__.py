"""Entry point of `python -m seit`, the same as `seit`."""

from seit.cli import main

if __name__ == "__main__":
    main()
