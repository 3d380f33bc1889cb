"""A file is the old one or the new one, and where none can be written that is said before the work."""

import os

import pytest

from gdkernels.files import check_writable, replacing


def test_the_new_content_takes_the_name(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".json"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "a", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_writable_place_passes_and_stays_empty(tmp_path):
    check_writable(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none for the file a\.png"):
        check_writable(tmp_path / "none" / "a.png")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_writable(tmp_path)


def test_a_device_is_not_replaced():
    with pytest.raises(OSError, match="not a regular file"):
        check_writable(os.devnull)


def test_a_folder_without_the_right_to_write_is_refused(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # rights do not stop the superuser
    with pytest.raises(PermissionError, match=r"cannot write .*a: Permission denied"):
        check_writable(tmp_path / "a")


def test_a_name_too_long_for_the_work_beside_it_is_refused_before(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*: File name too long"):
        check_writable(tmp_path / ("a" * 248 + ".json"))
    assert list(tmp_path.iterdir()) == []
