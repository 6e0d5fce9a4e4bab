"""`python -m lstmconvert`: the same as the command `lstmconvert`."""

if __name__ == "__main__":
    # Imported here alone: each worker of `batch` imports this module, and needs no command line.
    from lstmconvert.cli.main import main

    main()
