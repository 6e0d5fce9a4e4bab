"""`python -m lstmconvert`: the same as the command `lstmconvert`."""

from lstmconvert.cli.main import main

if __name__ == "__main__":
    main()
