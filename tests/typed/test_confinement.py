"""Paths inside a root: which are rejected before a file is opened, which are found, and what errors may name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from greendata.errors import BadArgument, FileMissing, GreenDataError, PathRefused
from greendata.typed import confinement


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with files, next to a folder that must not be read."""
    top = tmp_path / "root"
    for name in ("a.csv", "b.csv", "c.txt", ".hidden.csv", "deep/d.csv", "deep/er/e.csv"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("a\n1\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.csv").write_text("a\n2\n")
    return top


def found(path: str, root: Path) -> list[str]:
    return [str(Path(file).relative_to(root.resolve())) for file in confinement.resolve_sources(path, root).paths]


def test_files_folders_and_globs(root: Path) -> None:
    assert found("a.csv", root) == ["a.csv"]
    assert found("./deep/d.csv", root) == ["deep/d.csv"]
    assert found(str(root / "a.csv"), root) == ["a.csv"]
    assert found("*.csv", root) == ["a.csv", "b.csv"]
    assert found(".h*.csv", root) == [".hidden.csv"]
    assert found("deep", root) == ["deep/d.csv", "deep/er/e.csv"]
    assert found("**/[de].csv", root) == ["deep/d.csv", "deep/er/e.csv"]
    assert found("deep/*/e.csv", root) == ["deep/er/e.csv"]


def test_a_glob_with_many_stars_is_fast(tmp_path: Path) -> None:
    """The ``**`` could match the path of these files in forty million ways."""
    folder = tmp_path.joinpath(*["d"] * 14)
    folder.mkdir(parents=True)
    (folder / "a.csv").touch()
    (tmp_path / "a.csv").touch()
    assert found("**/" * 14 + "a.csv", tmp_path) == ["a.csv", "d/" * 14 + "a.csv"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(root: Path) -> None:
    (root / "[ab].csv").write_text("a\n1\n")
    assert found("[ab].csv", root) == ["[ab].csv"]


def test_without_a_root_a_path_is_passed_to_polars() -> None:
    assert confinement.resolve_sources("s3://bucket/*.parquet", None).paths == ("s3://bucket/*.parquet",)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside/secret.csv", "'..'"),
        ("deep/../a.csv", "'..'"),
        ("/etc/passwd", "absolute"),
        ("{tmp}/outside/secret.csv", "absolute"),
        ("{tmp}/rootless/a.csv", "absolute"),
        ("a.csv\0.png", "NUL"),
        ("file:///etc/passwd", "URL"),
        ("s3://bucket/a.parquet", "URL"),
        ("out/secret.csv", "link leads out"),
        ("out", "link leads out"),
        ("out/*.csv", "link leads out"),
        ("*/secret.csv", "link leads out"),
        ("*ut/*.csv", "link leads out"),
        ("link.csv", "link leads out"),
        ("lin?.csv", "link leads out"),
        ("circle", "links form a loop"),
        ("pipe", "not a regular file"),
        ("pip?", "not a regular file"),
    ],
)
def test_paths_that_lead_out_are_refused(root: Path, path: str, reason: str) -> None:
    (root / "out").symlink_to(root.parent / "outside")
    (root / "link.csv").symlink_to("../outside/secret.csv")
    if path == "circle":
        (root / "circle").symlink_to("circle")
    os.mkfifo(root / "pipe")
    with pytest.raises(PathRefused, match=reason) as caught:
        confinement.resolve_sources(path.format(tmp=root.parent), root)
    assert "name a file inside the root" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    if not set("*?") & set(path):  # a target is one file, and its name may contain these characters
        with pytest.raises(GreenDataError):
            confinement.resolve_target(path.format(tmp=root.parent), root)


def test_links_inside_are_followed_and_circles_of_folders_are_not(root: Path) -> None:
    (root / "same.csv").symlink_to("a.csv")
    (root / "deep" / "up").symlink_to("..")
    assert found("same.csv", root) == ["a.csv"]
    assert found("**/d.csv", root) == ["deep/d.csv"]


def test_a_root_may_be_a_link_itself(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    assert confinement.resolve_sources("a.csv", root.parent / "alias").paths == (str(root.resolve() / "a.csv"),)


def test_missing_files_and_roots(root: Path) -> None:
    for path in ("no.csv", "*.parquet", "a.csv/b.csv", "no/*.csv"):
        with pytest.raises(FileNotFoundError) as caught:
            confinement.resolve_sources(path, root)
        assert isinstance(caught.value, FileMissing)
        assert str(caught.value) == f"there is no file or folder {path!r}"
    for bad in (root / "no", root / "a.csv"):
        with pytest.raises(BadArgument, match="root must be an existing folder"):
            confinement.resolve_sources("a.csv", bad)


def test_a_link_that_is_swapped_after_the_check_is_not_followed(root: Path) -> None:
    (root / "now.csv").symlink_to("a.csv")
    sources = confinement.resolve_sources("now.csv", root)
    (root / "now.csv").unlink()
    (root / "now.csv").symlink_to("../outside/secret.csv")
    sources.check()
    assert sources.paths == (str(root.resolve() / "a.csv"),)


def test_a_path_that_becomes_a_link_after_the_check_is_refused_at_the_run(root: Path) -> None:
    sources = confinement.resolve_sources("deep/d.csv", root)
    (root / "deep").rename(root / "deeper")
    with pytest.raises(FileMissing):
        sources.check()
    (root / "deep").symlink_to("deeper")
    with pytest.raises(PathRefused, match="has become a link"):
        sources.check()
    (root / "deep").unlink()
    (root / "deep").symlink_to("../outside")
    (root.parent / "outside" / "d.csv").write_text("a\n3\n")
    with pytest.raises(PathRefused, match="link leads out"):
        sources.check()


def test_targets(root: Path) -> None:
    assert confinement.resolve_target("new.csv", root).paths == (str(root.resolve() / "new.csv"),)
    assert confinement.resolve_target("deep/new.csv", root).shown == "deep/new.csv"
    with pytest.raises(FileMissing, match="no file or folder 'no'"):
        confinement.resolve_target("no/new.csv", root)
    with pytest.raises(PathRefused, match="not a regular file"):
        confinement.resolve_target("deep", root)


def test_errors_are_cleaned_of_the_root(root: Path) -> None:
    one = confinement.resolve_sources("a.csv", root)
    assert one.cleaned(f"cannot open {root.resolve()}/a.csv") == "cannot open a.csv"
    many = confinement.resolve_sources("*.csv", root)
    assert many.cleaned(f"{root.resolve()}/b.csv: bad, in {root.resolve()}") == "b.csv: bad, in ."
