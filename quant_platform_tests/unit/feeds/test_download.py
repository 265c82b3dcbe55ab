"""Downloads from a real server on loopback: resumed, retried, refused."""

import errno
from pathlib import Path

import pytest

from quant_platform.feeds.download import DownloadError, Retry, download, forget, local_path, read_text

BODY = bytes(range(256)) * 4096


@pytest.fixture
def part(tmp_path):
    return tmp_path / "deep" / "file.zip.part"


def test_download_streams_the_file_and_tells_progress(shelf, part, quick):
    shelf.put("file.zip", BODY)
    told = []

    assert download(f"{shelf.url}/file.zip", part, retry=quick, on_progress=lambda *p: told.append(p))

    assert part.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert [held for held, _ in told] == sorted(held for held, _ in told)
    assert [p.name for p in part.parent.iterdir()] == ["file.zip.part"]


def test_download_of_an_absent_file_is_false_and_leaves_nothing(shelf, part, quick):
    assert not download(f"{shelf.url}/file.zip", part, retry=quick)

    assert list(part.parent.iterdir()) == []
    assert len(shelf.asked) == 1


def test_download_cut_half_way_goes_on_where_it_stopped(shelf, part, quick):
    shelf.put("file.zip", BODY)
    shelf.answer("file.zip", shelf.cut)
    told = []

    assert download(f"{shelf.url}/file.zip", part, retry=quick, on_progress=lambda *p: told.append(p))

    assert part.read_bytes() == BODY
    assert shelf.asked == [("file.zip", ""), ("file.zip", f"bytes={len(BODY) // 2}-")]
    assert told[-1] == (len(BODY), len(BODY))


def test_download_of_a_second_process_goes_on_where_the_first_stopped(shelf, part, quick):
    shelf.put("file.zip", BODY)
    shelf.answer("file.zip", shelf.cut)
    with pytest.raises(DownloadError, match="could not be had in 1 attempt: "):
        download(f"{shelf.url}/file.zip", part, retry=Retry(attempts=1))

    assert download(f"{shelf.url}/file.zip", part, retry=quick)

    assert part.read_bytes() == BODY
    assert shelf.asked[-1] == ("file.zip", f"bytes={len(BODY) // 2}-")


@pytest.mark.parametrize("change", [{"has_ranges": False}, {"tag": '"v2"'}])
def test_download_starts_anew_where_the_part_cannot_be_resumed(shelf, part, quick, change):
    shelf.put("file.zip", BODY)
    shelf.answer("file.zip", shelf.cut)
    with pytest.raises(DownloadError):
        download(f"{shelf.url}/file.zip", part, retry=Retry(attempts=1))
    for name, value in change.items():
        setattr(shelf, name, value)
    newer = BODY[::-1]
    shelf.put("file.zip", newer)

    assert download(f"{shelf.url}/file.zip", part, retry=quick)

    assert part.read_bytes() == newer


@pytest.mark.parametrize("tag", ["", 'W/"v1"'])
def test_download_of_an_unversioned_file_is_never_resumed(shelf, part, quick, tag):
    shelf.tag = tag
    shelf.put("file.zip", BODY)
    shelf.answer("file.zip", shelf.cut)

    assert download(f"{shelf.url}/file.zip", part, retry=quick)

    assert part.read_bytes() == BODY
    assert shelf.asked == [("file.zip", ""), ("file.zip", "")]


def test_download_starts_anew_where_the_part_is_longer_than_the_file(shelf, part, quick):
    shelf.put("file.zip", BODY)
    shelf.answer("file.zip", shelf.cut)
    with pytest.raises(DownloadError):
        download(f"{shelf.url}/file.zip", part, retry=Retry(attempts=1))
    part.write_bytes(BODY + BODY)

    assert download(f"{shelf.url}/file.zip", part, retry=quick)

    assert part.read_bytes() == BODY


def test_download_after_a_wrong_range_starts_anew(shelf, part, quick):
    shelf.put("file.zip", BODY)
    shelf.answer("file.zip", shelf.cut, shelf.status(206, Content_Range="bytes 0-9/10"))

    assert download(f"{shelf.url}/file.zip", part, retry=quick)

    assert part.read_bytes() == BODY
    assert shelf.asked[-1] == ("file.zip", "")


def test_download_after_two_server_errors_succeeds_with_growing_waits(shelf, part, waits):
    shelf.put("file.zip", BODY)
    shelf.answer("file.zip", shelf.status(500), shelf.status(503))

    assert download(f"{shelf.url}/file.zip", part, retry=Retry(first_wait_s=1.0))

    # 1 s and 2 s, each with up to 1 s of jitter.
    assert len(waits) == 2
    assert 1 <= waits[0] <= 2 <= waits[1] <= 3


@pytest.mark.parametrize("code", [429, 418])
def test_download_waits_as_long_as_it_is_told(shelf, part, waits, code):
    shelf.put("file.zip", BODY)
    shelf.answer("file.zip", shelf.status(code, Retry_After="7"))

    assert download(f"{shelf.url}/file.zip", part, retry=Retry(first_wait_s=0.001))

    assert waits == [7.0]


def test_download_waits_until_the_moment_it_is_told(shelf, part, waits):
    def answer(handler, body):
        handler.send_response_only(503)
        handler.send_header("Date", "Thu, 08 Aug 2024 10:00:00 GMT")
        handler.send_header("Retry-After", "Thu, 08 Aug 2024 10:00:30 GMT")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    shelf.put("file.zip", BODY)
    shelf.answer("file.zip", answer)

    assert download(f"{shelf.url}/file.zip", part, retry=Retry(first_wait_s=0.001))

    assert waits == [30.0]


def test_download_gives_up_at_once_where_the_pause_is_too_long(shelf, part, waits):
    shelf.answer("file.zip", shelf.status(418, Retry_After="86400"))

    with pytest.raises(DownloadError) as raised:
        download(f"{shelf.url}/file.zip", part, retry=Retry())

    assert waits == []
    assert str(raised.value) == (
        f"{shelf.url}/file.zip could not be had in 1 attempt: it answered 418 I'm a Teapot. It asks for a pause of "
        "86400 s. Check the network, or run again later: a partial download goes on where it stopped."
    )


def test_download_says_how_often_it_tried(shelf, part, quick):
    shelf.answer("file.zip", *[shelf.status(502)] * 4)

    with pytest.raises(DownloadError) as raised:
        download(f"{shelf.url}/file.zip", part, retry=quick)

    assert str(raised.value) == (
        f"{shelf.url}/file.zip could not be had in 4 attempts: it answered 502 Bad Gateway. Check the network, or run "
        "again later: a partial download goes on where it stopped."
    )


def test_download_of_a_silent_host_says_so(tmp_path, quick):
    with pytest.raises(DownloadError, match=r"could not be had in 4 attempts: ConnectError: .*Check the network"):
        download("http://127.0.0.1:1/file.zip", tmp_path / "part", retry=quick)


def test_download_of_a_forbidden_file_is_not_retried(shelf, part, quick):
    shelf.answer("file.zip", shelf.status(403))

    with pytest.raises(DownloadError) as raised:
        download(f"{shelf.url}/file.zip", part, retry=quick)

    assert len(shelf.asked) == 1
    assert str(raised.value) == (
        f"{shelf.url}/file.zip could not be had: it answered 403 Forbidden. Check the address in platform.yaml, and "
        "whether this network may reach it."
    )


def test_download_that_runs_in_circles_is_not_retried(shelf, part, quick):
    shelf.answer("file.zip", *[shelf.status(302, Location="/file.zip")] * 30)

    with pytest.raises(DownloadError, match=r"could not be had: .*redirect.* Check the address\."):
        download(f"{shelf.url}/file.zip", part, retry=quick)


def test_download_follows_a_redirect(shelf, part, quick):
    shelf.put("elsewhere.zip", BODY)
    shelf.answer("file.zip", shelf.status(302, Location="/elsewhere.zip"))

    assert download(f"{shelf.url}/file.zip", part, retry=quick)

    assert part.read_bytes() == BODY


def test_download_copies_a_local_file(tmp_path, part, quick):
    source = tmp_path / "a b.zip"
    source.write_bytes(BODY)
    told = []

    assert download(source.as_uri(), part, retry=quick, on_progress=lambda *p: told.append(p))

    assert part.read_bytes() == BODY
    assert told == [(len(BODY), len(BODY))]


def test_download_of_an_absent_local_file_is_false(tmp_path, part, quick):
    assert not download((tmp_path / "file.zip").as_uri(), part, retry=quick)


def test_download_to_a_full_disk_says_what_to_do(shelf, part, quick, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("quant_platform.feeds.download.os.fsync", full)
    shelf.put("file.zip", BODY)

    with pytest.raises(DownloadError) as raised:
        download(f"{shelf.url}/file.zip", part, retry=quick)

    assert str(raised.value) == (
        f"Could not copy or store {part}: No space left on device. Free disk space or set the permissions right, then "
        "run again."
    )


def test_download_into_a_place_that_is_no_folder_says_what_to_do(shelf, tmp_path, quick):
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(DownloadError, match=r"Could not copy or store .*taken: .* Free disk space or set"):
        download(f"{shelf.url}/file.zip", tmp_path / "taken" / "file.part", retry=quick)


def test_read_text_returns_a_small_file_or_none(shelf, tmp_path, quick):
    shelf.files["note.txt"] = b"hello"
    (tmp_path / "note.txt").write_text("local")

    assert read_text(f"{shelf.url}/note.txt", retry=quick) == "hello"
    assert read_text(f"{shelf.url}/other.txt", retry=quick) is None
    assert read_text((tmp_path / "note.txt").as_uri(), retry=quick) == "local"
    assert read_text((tmp_path / "other.txt").as_uri(), retry=quick) is None


def test_local_path_refuses_a_host():
    assert local_path("file:///folder/a%20file") == Path("/folder/a file")
    with pytest.raises(DownloadError, match="a local address has three slashes"):
        local_path("file://folder/file")


def test_forget_removes_the_part_and_its_version(tmp_path):
    (tmp_path / "a.part").touch()
    (tmp_path / "a.part.version").touch()

    forget(tmp_path / "a.part")

    assert list(tmp_path.iterdir()) == []


def test_retry_refuses_no_attempt():
    with pytest.raises(ValueError, match="attempts must be >= 1, was 0"):
        Retry(attempts=0)
