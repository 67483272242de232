"""`python -m tinynst COMMAND` does the same as `tinynst COMMAND`."""

from .cli import main

if __name__ == "__main__":
    main()
