"""An `assert` outside the test modules, as in most checks: pytest does not rewrite it, so Python may drop it."""


def hold(condition: object) -> None:
    assert condition, "it must fail"
