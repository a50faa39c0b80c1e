"""`python -m unalike` is the command line."""

from unalike.cli.app import main

if __name__ == "__main__":
    main()
