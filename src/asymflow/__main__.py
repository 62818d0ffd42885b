"""`python -m asymflow` is the command `asymflow`."""

from asymflow.cli.main import main

if __name__ == "__main__":
    main()
