import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from recurlab.data.files import Files, bytes_of, fetched, sha256_of, text_of
from recurlab.errors import RecurlabError

CONTENT = b"some text\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass(frozen=True)
class Book(Files):
    FOLDER: ClassVar[str] = "books"
    SHA256: ClassVar = {"known.txt": SHA256}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("RECURLAB_DATA", raising=False)
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path / "cache"))
    books = tmp_path / "books"
    books.mkdir()
    (books / "known.txt").write_bytes(CONTENT)
    (books / "other.txt").write_bytes(b"anything")
    return books


def message_of(function, *arguments, **options) -> str:
    with pytest.raises(RecurlabError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_come_from_dir_or_from_the_folder_of_shared_data(folder, monkeypatch):
    assert Book(dir=str(folder)).file("known.txt") == folder / "known.txt"
    assert Book().folder() is None
    monkeypatch.setenv("RECURLAB_DATA", str(folder.parent))
    assert Book().file("other.txt") == folder / "other.txt"
    assert Book(dir="elsewhere").folder() == Path("elsewhere")


def test_without_a_folder_the_message_says_what_to_set(folder):
    assert message_of(Book().file, "known.txt") == (
        "data.dir=None: must be the folder of known.txt, or RECURLAB_DATA that above books"
    )


def test_a_missing_file_is_named_with_its_checksum_and_the_nearest_name(folder):
    (folder / "known.txt").rename(folder / "known.text")
    message = message_of(Book(dir=str(folder)).file, "known.txt")
    assert f"data.dir={str(folder)!r}: known.txt is missing" in message
    assert SHA256 in message
    assert "did you mean 'known.text'?" in message


def test_a_folder_in_place_of_a_file_is_not_proposed(folder):
    (folder / "known.txt").unlink()
    (folder / "known.txt").mkdir()
    message = message_of(Book(dir=str(folder)).file, "known.txt")
    assert "known.txt is missing" in message
    assert "did you mean 'known.txt'" not in message


def test_a_missing_folder_is_said_to_be(folder):
    assert f"{folder / 'no'}: No such file or directory" in message_of(Book(dir=str(folder / "no")).file, "known.txt")


def test_a_name_that_no_file_can_have_is_refused(folder):
    assert "can't be read: File name too long" in message_of(Book(dir=str(folder)).file, "x" * 5000)


def test_another_file_than_the_original_is_refused_unless_asked_for(folder):
    (folder / "known.txt").write_bytes(CONTENT + b"x")
    message = message_of(Book(dir=str(folder)).file, "known.txt")
    assert f"sha256 {hashlib.sha256(CONTENT + b'x').hexdigest()}; the original has sha256 {SHA256}" in message
    assert Book(dir=str(folder), verify=False).file("known.txt") == folder / "known.txt"


def test_what_is_read_is_what_is_there(folder):
    path = folder / "a"
    path.write_bytes("a\r\nß\n\x0b".encode())
    assert text_of(path) == "a\r\nß\n\x0b"
    assert bytes_of(path) == path.read_bytes()
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_byte_order_mark_is_no_text(folder):
    (folder / "a").write_bytes(b"\xef\xbb\xbfa\xef\xbb\xbf")
    assert text_of(folder / "a") == "a\N{ZERO WIDTH NO-BREAK SPACE}"


def test_a_file_that_is_not_utf_8_is_named_with_the_byte(folder):
    (folder / "a").write_bytes("Stra\xdfe".encode("latin-1"))
    assert message_of(text_of, folder / "a") == f"{folder / 'a'}: not UTF-8: byte 4 is 0xdf"


@pytest.mark.parametrize("read", [text_of, bytes_of, sha256_of])
def test_a_file_that_cannot_be_read_is_named(folder, read):
    assert message_of(read, folder) == f"{folder}: can't be read: not a regular file"


def url_of(path: Path) -> str:
    return path.as_uri()


def test_a_file_is_fetched_once(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    path = fetched("data.url", url_of(folder / "known.txt"), SHA256)
    assert path.read_bytes() == CONTENT
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (folder / "known.txt").unlink()
    assert fetched("data.url", url_of(folder / "known.txt"), SHA256) == path
    assert list(path.parent.iterdir()) == [path]


def test_a_fetched_file_that_was_damaged_is_fetched_again(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    path = fetched("data.url", url_of(folder / "known.txt"), SHA256)
    path.write_bytes(CONTENT[:-1])
    assert fetched("data.url", url_of(folder / "known.txt"), SHA256).read_bytes() == CONTENT


def test_another_file_than_the_original_is_not_kept(folder, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    message = message_of(fetched, "data.url", url_of(folder / "other.txt"), SHA256)
    assert f"the original has sha256 {SHA256}; for a local file set data.dir" in message
    assert list((folder.parent / "cache" / "files").iterdir()) == []


def test_nothing_is_asked_for_where_the_environment_forbids_it(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("asked"))
    message = message_of(fetched, "data.url", "https://example.invalid/known.txt", SHA256)
    assert message == (
        "data.url='https://example.invalid/known.txt': not fetched, for HF_HUB_OFFLINE is set; "
        "for a local file set data.dir or RECURLAB_DATA"
    )


@pytest.mark.parametrize("url", ["no address", "nothing://x", "file:///no/such/file", "http://[", ""])
def test_an_address_that_gives_nothing_is_named(folder, monkeypatch, url):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    message = message_of(fetched, "data.url", url, SHA256)
    assert message.startswith(f"data.url={url!r}: can't be fetched (")
    assert "set data.dir or RECURLAB_DATA" in message


def test_a_file_is_not_fetched_where_it_cannot_be_kept(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("RECURLAB_CACHE", str(folder / "known.txt"))
    assert "can't be fetched (" in message_of(fetched, "data.url", url_of(folder / "other.txt"), SHA256)
