"""`python -m longshore`."""

from longshore.cli import main

if __name__ == "__main__":
    main()
