from __future__ import annotations

import errno
from pathlib import Path

import pytest

from data.errors import DataError
from data.storage import atomic_dir, atomic_write, discard_partials, join, list_files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.txt"
    with atomic_write(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as partial:  # noqa: PT012
        partial.write_text("seco")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert names(path.parent) == ["file.txt"]


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path: Path) -> None:
    """By a rename, not a copy: neither an open reader nor another link to the file sees the new content."""
    path, link = tmp_path / "file.txt", tmp_path / "link.txt"
    path.write_text("first\nand more\n")
    link.hardlink_to(path)
    with path.open() as reader:
        assert reader.readline() == "first\n"
        with atomic_write(path) as partial:
            partial.write_text("second")
        assert reader.read() == "and more\n"
    assert (path.read_text(), link.read_text()) == ("second", "first\nand more\n")
    assert names(tmp_path) == ["file.txt", "link.txt"]


def test_a_block_that_writes_no_file_is_an_error_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("first")
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert path.read_text() == "first"


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    root = tmp_path / "split"
    for name in ("old", "new"):
        with atomic_dir(root) as folder:
            (folder / name).write_text(name)
    assert names(root) == ["new"]
    with pytest.raises(ValueError, match="stop"), atomic_dir(root) as folder:  # noqa: PT012
        (folder / "half").write_text("half")
        raise ValueError("stop")
    assert names(root) == ["new"]
    assert names(tmp_path) == ["split"]


def test_a_folder_that_cannot_be_swapped_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of the two renames fails: the first one is taken back."""
    root = tmp_path / "split"
    with atomic_dir(root) as folder:
        (folder / "old").write_text("old")
    moved: list[str] = []
    replace = Path.replace

    def fail_second(source: Path, target: Path) -> Path:
        moved.append(source.name)
        if len(moved) == 2:
            assert not root.exists()
            raise OSError(errno.EIO, "Input/output error")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", fail_second)
    with pytest.raises(OSError, match="Input/output error"), atomic_dir(root) as folder:
        (folder / "new").write_text("new")
    assert names(root) == ["old"]
    assert names(tmp_path) == ["split"]


@pytest.mark.parametrize(
    ("name", "left"), [("*", ["c"]), ("a", [".b.1.partial", "c"]), ("b", [".a.1.partial", "c"])]
)
def test_what_killed_processes_left_is_discarded(tmp_path: Path, name: str, left: list[str]) -> None:
    (tmp_path / ".a.1.partial").mkdir()
    for other in (".a.1.partial/file", ".b.1.partial", "c"):
        (tmp_path / other).touch()
    discard_partials(tmp_path, name)
    assert names(tmp_path) == left


def test_files_are_listed_sorted_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.png", "a.jpg", ".hidden/3.png", "b/.4.png", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_files(tmp_path) == ["a.jpg", "b/1.png", "b/2.PNG", "note.txt"]
    assert list_files(tmp_path, (".png", ".jpg")) == ["a.jpg", "b/1.png", "b/2.PNG"]
    with pytest.raises(DataError, match="no such folder"):
        list_files(tmp_path / "absent")


def test_linked_folders_are_listed_once_and_after_those_without_links(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for path in (root / "real/1.png", root / "z/2.png", outside / "3.png", outside / "deep/4.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for link, target in {
        "a": root / "real",  # listed without the link
        "b": outside,
        "c": outside / "deep",  # listed as b/deep
        "circle": root,
        "z/up": tmp_path,  # leads to both again
        "nowhere": tmp_path / "nothing",
        "self": root / "self",
        ".hidden": outside,
    }.items():
        (root / link).symlink_to(target)
    (outside / "back").symlink_to(root)
    assert list_files(root, (".png",)) == ["b/3.png", "b/deep/4.png", "real/1.png", "z/2.png"]
    assert "nowhere" in list_files(root)  # a file that can't be read is somebody's fault to report
    with pytest.raises(DataError, match="leaves the image root"):
        join(root, "b/3.png")


@pytest.mark.parametrize(
    ("relative", "good"),
    [
        ("a.png", True),
        ("folder/über alles.png", True),
        ("..a/b..png", True),
        ("/etc/passwd", False),
        ("../a.png", False),
        ("a/../../b.png", False),
        ("a\\..\\b.png", False),
        ("C:\\a.png", False),
        ("", False),
        ("a\0.png", False),
        ("out/a.png", False),  # a link that leads out of the root
        ("circle/a.png", False),
    ],
)
def test_paths_from_files_stay_under_the_root(tmp_path: Path, relative: str, good: bool) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "circle").symlink_to("circle")
    if good:
        assert join(root, relative) == root / relative
    else:
        with pytest.raises(DataError, match="leaves the image root"):
            join(root, relative)
