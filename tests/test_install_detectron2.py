"""tools/install_detectron2.py, without the network."""

import importlib.metadata
import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

import install_detectron2 as tool

TREE = {
    "detectron2/__init__.py": b'__version__ = "0.6"\n',
    "detectron2/a.py": b"x = np.int\ny = np.int\n",
    "detectron2/model_zoo/configs/b.yaml": b"MODEL: {}\n",
    "projects/PointRend/point_rend/__init__.py": b"",
    "setup.py": b"raise SystemExit\n",
    "LICENSE": b"Apache License\n",
}
FIXES = (tool.Fix("a.py", "np.int", "int", "NumPy has no np.int"),)


def write_sdist(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def upstream_like_tree() -> dict[str, bytes]:
    """Files that hold every text that the real fixes expect."""
    files = dict(TREE)
    for fix in tool.FIXES:
        name = f"detectron2/{fix.file}"
        files[name] = files.get(name, b"") + fix.old.encode()
    return files


def test_sdist_becomes_the_files_that_upstream_installs(tmp_path):
    files = tool.read_sdist(write_sdist(tmp_path / "s.tar.gz", TREE))
    assert files == TREE
    assert set(tool.select_package(files)) == {
        "detectron2/__init__.py",
        "detectron2/a.py",
        "detectron2/model_zoo/configs/b.yaml",
        "detectron2/projects/point_rend/__init__.py",
        f"{tool.DIST_INFO}/LICENSE",
    }


def test_fix_replaces_every_occurrence_and_marks_only_the_changed_file():
    fixed = tool.apply_fixes(TREE, FIXES)
    assert fixed["detectron2/a.py"].decode().splitlines() == [
        "# Modified for detectron2 0.6+purepython: NumPy has no np.int.",
        "x = int",
        "y = int",
    ]
    assert {name for name in TREE if fixed[name] != TREE[name]} == {"detectron2/a.py"}
    assert TREE["detectron2/a.py"].startswith(b"x = np.int")


@pytest.mark.parametrize("file", ["a.py", "absent.py"])
def test_absent_text_is_an_error_that_names_file_and_text(file):
    fix = tool.Fix(file, "np.float", "float", "NumPy has no np.float")
    with pytest.raises(tool.InstallError, match=rf"detectron2/{file}.*'np\.float'"):
        tool.apply_fixes(TREE, (fix,))


def test_no_fix_leaves_the_tree_as_it_is():
    assert tool.apply_fixes(TREE, ()) == TREE


def test_every_fix_of_the_table_leaves_valid_python():
    fixed = tool.apply_fixes(upstream_like_tree())
    for fix in tool.FIXES:
        assert fix.old not in fix.new or "try:" in fix.new or "if _C" in fix.new
        if fix.new.endswith("\n") and not fix.new.startswith(" "):
            compile(fix.new, fix.file, "exec")
        assert fix.why in fixed[f"detectron2/{fix.file}"].decode().splitlines()[0]


def test_names_that_numpy_has_stay():
    files = upstream_like_tree()
    names = b"\nx = y(dtype=np.int64), y(dtype=np.str_), y(dtype=np.float32)\n"
    files = {name: content + names for name, content in files.items()}
    for fix in tool.FIXES:
        assert names in tool.apply_fixes(files)[f"detectron2/{fix.file}"]


def test_wheel_bytes_do_not_depend_on_time_or_order(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    package = tool.select_package(TREE)
    one = tool.write_wheel(package, tmp_path / "one")
    two = tool.write_wheel(dict(reversed(package.items())), tmp_path / "two")
    assert one.name == "detectron2-0.6+purepython-py3-none-any.whl"
    assert one.read_bytes() == two.read_bytes()


def test_wheel_is_recognized_with_its_metadata(tmp_path):
    path = tool.write_wheel(tool.select_package(TREE), tmp_path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "site")
    (distribution,) = importlib.metadata.distributions(path=[str(tmp_path / "site")])
    assert (distribution.metadata["Name"], distribution.version) == ("detectron2", "0.6+purepython")
    assert distribution.metadata["License"] == "Apache-2.0"
    assert "without compiled ops" in distribution.metadata["Summary"]
    assert "numpy>=2.0" in distribution.requires
    for file in distribution.files:
        content = file.read_binary()
        assert file.size in (None, len(content))  # RECORD does not count itself


def test_wheel_dir_builds_from_the_fetched_sdist(tmp_path, monkeypatch, capsys):
    def fetch(directory: Path) -> Path:
        return write_sdist(directory / "s.tar.gz", upstream_like_tree())

    monkeypatch.setattr(tool, "fetch_sdist", fetch)
    assert tool.main(["--wheel-dir", str(tmp_path / "new" / "wheels")]) == 0
    assert [path.name for path in (tmp_path / "new" / "wheels").iterdir()] == [tool.WHEEL_NAME]
    assert tool.WHEEL_NAME in capsys.readouterr().out


def error_line(capsys) -> str:
    """The one line on stderr."""
    captured = capsys.readouterr()
    assert captured.err.startswith("install_detectron2: ") and captured.err.count("\n") == 1
    return captured.err


def test_wrong_hash_is_one_line(tmp_path, monkeypatch, capsys):
    # pip itself meets the other file, in a folder that stands for the index.
    index = tmp_path / "index"
    index.mkdir()
    write_sdist(index / "pb1-detectron2-0.6.tar.gz", TREE)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    assert tool.main(["--wheel-dir", str(tmp_path / "wheels")]) == 1
    line = error_line(capsys)
    assert "wrong hash" in line and tool.SDIST_SHA256 in line
    assert list((tmp_path / "wheels").iterdir()) == []


def test_nothing_to_fetch_from_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert tool.main(["--wheel-dir", str(tmp_path)]) == 1
    assert "check the network" in error_line(capsys)


def test_unwritable_directory_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert tool.main(["--wheel-dir", str(tmp_path / "file" / "wheels")]) == 1
    assert str(tmp_path / "file" / "wheels") in error_line(capsys)


def test_missing_pytorch_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert tool.main([]) == 1
    assert "PyTorch must be installed first" in error_line(capsys)


def test_installed_detectron2_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(tool, "run_pip", lambda *arguments: pytest.fail("pip was called"))
    assert tool.main([]) == 0
    version = importlib.metadata.version("detectron2")
    assert capsys.readouterr().out == f"using the installed detectron2 {version}\n"


def test_broken_detectron2_is_one_line(tmp_path, monkeypatch, capsys):
    broken = tmp_path / "detectron2"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('no libcudart')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in tool.sys.modules if name.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(tool.sys.modules, name)
    assert tool.main([]) == 1
    assert "no libcudart" in error_line(capsys)
