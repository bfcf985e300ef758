"""All that is wrong with a recipe and its table in one message, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from beholder.errors import BeholderError, RecipeError


class Problems:
    """Collects errors: `with problems: ...` notes the error that ends the block, and goes on.

    problems = Problems()
    with problems:
        check_this()
    with problems:
        check_that()
    problems.raise_all()
    """

    def __init__(self) -> None:
        self.errors: list[BeholderError] = []

    def __enter__(self) -> Problems:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, BeholderError):
            return False
        if str(error) not in {str(known) for known in self.errors}:
            self.errors.append(error)
        return True

    def raise_all(self) -> None:
        """Raises:
        BeholderError: the only one, as it is; of several one that tells them all.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise SeveralProblems(self.errors)


class SeveralProblems(RecipeError):
    """Several things are wrong: `errors`."""

    def __init__(self, errors: Sequence[BeholderError]) -> None:
        super().__init__(f"{len(errors)} things are wrong; nothing has been computed.")
        self.errors = tuple(errors)

    def __str__(self) -> str:
        entries = [f"{index}. {error}" for index, error in enumerate(self.errors, 1)]
        return "\n".join([self.what, *entries])
