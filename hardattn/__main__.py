"""`python -m hardattn` is the same as `hardattn`."""

from hardattn.cli import main

if __name__ == "__main__":
    main()
