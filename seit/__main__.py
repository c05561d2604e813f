"""`python -m seit` is `seit`."""

from seit.cli import main

if __name__ == "__main__":
    main()
