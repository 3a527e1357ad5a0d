"""`python -m jaxinf.cli`, where the console script is not on the path."""

from jaxinf.cli import main

if __name__ == "__main__":
    main()
