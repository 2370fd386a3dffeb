"""The demo's command line; `make demo` runs it."""

import pytest

import demo


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--no-such-flag"], 2)])
def test_arguments_do_not_start_the_demo(arguments, status, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["demo.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        demo.main()
    assert exit_.value.code == status
    assert not list(tmp_path.iterdir())
    assert status or "Trains a teacher, then a PAA and a LAD student" in capsys.readouterr().out
