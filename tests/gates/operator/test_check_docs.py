"""docs/checks.md: generated from the code, and complete both ways."""

from gates import catalogue
from gates.operator import lint
from gates.reports import promises


def test_the_page_of_checks_is_what_the_code_says() -> None:
    """A check that changed without its page is seen. Mend with `gate lint --write-catalogue`."""
    page = promises.render(catalogue.load(), lint.promised_lines(), lint.left_out_lines())
    assert lint.CHECKS_PAGE.read_text(encoding="utf-8") == page


def test_every_promise_has_a_check_or_a_reason() -> None:
    """No line is lost, and nothing cites a line that does not exist."""
    assert promises.unaccounted(catalogue.load(), lint.promised_lines(), lint.left_out_lines()) == []
