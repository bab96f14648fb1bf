"""Commands of `slimjax`, called in this process."""

from slimjax.verbs import cli


def refusal(capsys, *arguments: str) -> str:
    """The one message with which a command line is refused, as a mistake of the user's."""
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("slimjax")
    assert err.count(": error: ") == 1
    return err
