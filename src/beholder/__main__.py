"""`python -m beholder`, which torchrun needs."""

from beholder.cli import main

if __name__ == "__main__":
    main()
