"""The screen Data: uploads and their reports, the grid of images, revisions, export, deletion."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.console.conftest import OpenConsole
from tests.support.correction_app import coco, drawn, packed, street
from tests.support.serving import Server
from tests.support.shapes import write_shapes

WAIT = 60_000  # milliseconds; a busy machine is no fault of the page
LONG = 180_000  # for jobs


def payload(name: str, data: bytes, kind: str = "application/octet-stream") -> FilePayload:
    return {"name": name, "mimeType": kind, "buffer": data}


def faulty() -> bytes:
    """A zip of a dataset with problems."""
    files = dict(street({f"train/{i}.png": i % 3 for i in range(6)} | {"val/a.png": 0}))
    files["images/train/broken.png"] = drawn(50)[:200]
    files["labels/train/1.txt"] = "1 0.5 0.5 0.2 0.2\n0 nonsense\n"
    return packed(files)


@pytest.fixture(scope="module")
def shapes(live: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of 150 drawn images, of which two are corrected; a page has 120."""
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, "detect", 130, 20, imgsz=48)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    with httpx.Client(base_url=live.url, timeout=WAIT / 1000) as client:
        files = {"file": ("shapes.zip", buffer.getvalue())}
        answer = client.post("/api/datasets", files=files, data={"name": "Drawn shapes"})
        assert answer.status_code == 201, answer.text
        dataset = str(answer.json()["id"])
        label = answer.json()["classes"][0]
        listed = client.get(f"/api/datasets/{dataset}/images", params={"split": "train"}).json()
        document = coco({}, (48, 48))
        document["categories"] = [{"id": 1, "name": label}]
        for number, row in enumerate(listed["images"][:2], 1):
            image = {"id": number, "file_name": row["name"], "width": 48, "height": 48}
            document["images"].append(image)
            document["annotations"].append(
                {"id": number, "image_id": number, "category_id": 1, "bbox": [1, 1, 9, 9]}
            )
        sent = client.post(f"/api/datasets/{dataset}/annotations", json=document)
        assert sent.status_code == 201, sent.text
    return dataset


@pytest.mark.smoke
def test_a_dataset_is_uploaded_and_its_problems_are_read(console: OpenConsole) -> None:
    page = console().open("#/data")
    page.get_by_role("link", name="Upload", exact=True).click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(payload("Faulty streets.zip", faulty()))
    expect(page.get_by_text("Faulty streets is stored")).to_be_visible(timeout=LONG)
    problems = page.locator(".data-problems")
    expect(problems.get_by_text("Images that cannot be read, ignored: 1")).to_be_visible()
    expect(problems.get_by_text("does not consist of numbers")).to_be_visible()
    page.get_by_role("link", name="Open the dataset").click()
    unreadable = problems.locator("li", has_text="Images that cannot be read")
    unreadable.get_by_role("link", name="Show the image").click()
    expect(page).to_have_url(re.compile("problem=corrupt_image"))
    tiles = page.locator(".data-tile")
    expect(tiles).to_have_count(1)
    expect(tiles).to_contain_text("cannot be shown")


def test_several_images_become_a_dataset_to_annotate(console: OpenConsole) -> None:
    page = console().open("#/data/new")
    expect(page.get_by_role("button", name="Choose files")).to_have_attribute(
        "aria-disabled", "true"
    )
    page.get_by_label("Name").fill("From zero")
    page.get_by_label("Classes").fill("car\ntraffic light\n")
    files = [payload(f"{seed}.png", drawn(100 + seed), "image/png") for seed in range(4)]
    files += [payload("again.png", drawn(100)), payload("broken.png", drawn(101)[:90])]
    page.locator("input[type=file][multiple]").set_input_files(files)
    expect(page.get_by_text("From zero is stored")).to_be_visible(timeout=LONG)
    for what, count in (
        ("received", "6"),
        ("not annotated", "4"),
        ("copies", "1"),
        ("cannot be read", "1"),
    ):
        tile = page.locator(".tile").filter(has=page.get_by_text(what, exact=True))
        expect(tile.locator("dd")).to_have_text(count)
    expect(page.get_by_role("link", name="Annotate now")).to_be_visible()
    page.get_by_role("link", name="Open the dataset").click()
    page.get_by_role("link", name="Images", exact=True).click()
    expect(page.locator(".data-tile")).to_have_count(5)  # the broken one is shown as such
    page.get_by_role("button", name="Add images").click()
    more = [payload("new.png", drawn(110)), payload("known.png", drawn(100))]
    page.locator("input[type=file][multiple]").set_input_files(more)
    expect(page.get_by_text("1 taken, 1 already there, 0 refused.")).to_be_visible(timeout=WAIT)
    expect(page.get_by_role("cell", name="known.png")).to_be_visible()
    page.get_by_role("link", name="Open the dataset").click()
    expect(page.locator(".data-tile")).to_have_count(5)


def test_a_folder_of_many_files_is_packed_by_the_page(console: OpenConsole, tmp_path: Path) -> None:
    write_shapes(tmp_path / "folder set", "detect", 130, 10, imgsz=32)
    page = console().open("#/data/upload")
    page.locator("input[type=file]:not([multiple])").set_input_files(tmp_path / "folder set")
    expect(page.get_by_text("folder set is stored")).to_be_visible(timeout=LONG)
    expect(page.get_by_text("ready to train")).to_be_visible()


def test_images_that_are_dropped_are_uploaded(console: OpenConsole) -> None:
    page = console().open("#/data/upload")
    bytes_of = [list(drawn(200 + seed)) for seed in range(2)]
    dropped = page.evaluate_handle(
        """images => {
          const data = new DataTransfer();
          images.forEach((bytes, at) =>
            data.items.add(new File([new Uint8Array(bytes)], `${at}.png`)));
          return data;
        }""",
        bytes_of,
    )
    page.dispatch_event(".data-drop", "drop", {"dataTransfer": dropped})
    expect(page.get_by_text("0 is stored")).to_be_visible(timeout=LONG)
    page.get_by_role("link", name="Open the dataset").click()
    page.get_by_role("link", name="Images", exact=True).click()
    expect(page.locator(".data-tile")).to_have_count(2)


def test_an_upload_is_cancelled(console: OpenConsole, live: Server) -> None:
    shown = console()
    shown.expects |= {0}  # the request that is ended
    page = shown.open("#/data/upload")
    held: list[object] = []
    page.route("**/api/datasets", lambda route: held.append(route))
    page.locator("input[type=file][multiple]").set_input_files(payload("gone.zip", faulty()))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("The upload was cancelled.")).to_be_visible()
    page.unroute("**/api/datasets")
    names = [one["name"] for one in httpx.get(f"{live.url}/api/datasets").json()["datasets"]]
    assert "gone" not in names
    page.get_by_role("button", name="Upload another").click()
    expect(page.get_by_text("Drop a zip, images or a folder here")).to_be_visible()


def test_what_is_no_dataset_says_why(console: OpenConsole) -> None:
    page = console().open("#/data/upload")
    page.locator("input[type=file][multiple]").set_input_files(payload("x.zip", b"no zip"))
    expect(page.get_by_role("alert")).to_contain_text("not a zip", timeout=LONG)


def count_of(page: Page) -> int:
    text = page.locator(".data-images [role=status]").inner_text()
    return int(re.search(r"of ([\d,]+)", text)[1].replace(",", ""))  # type: ignore[index]


def test_the_grid_filters_pages_and_is_walked_by_keys(console: OpenConsole, shapes: str) -> None:
    page = console().open(f"#/data/{shapes}/images")
    tiles = page.locator(".data-tile")
    expect(tiles).to_have_count(120)
    tiles.last.scroll_into_view_if_needed()
    expect(tiles).to_have_count(150)
    page.get_by_label("Annotated by").select_option("person")
    expect(tiles).to_have_count(2)
    expect(page).to_have_url(re.compile("author=person"))
    page.get_by_role("button", name="Clear filters").click()
    expect(tiles).to_have_count(120)
    page.get_by_label("Split").select_option("val")
    expect(tiles).to_have_count(20)
    page.get_by_label("Class").select_option(index=1)
    expect(page).to_have_url(re.compile(r"split=val.*class=|class=.*split=val"))
    expect(page.locator(".data-images [role=status]")).not_to_contain_text("20 of 20")
    assert 0 < count_of(page) <= 20
    page.reload()
    expect(page.get_by_label("Split")).to_have_value("val")
    page.get_by_label("Split").select_option("")
    page.get_by_label("Class").select_option("")
    page.get_by_label("Part of the name").fill("0007")
    expect(tiles).to_have_count(2)
    page.get_by_label("Part of the name").fill("")
    expect(tiles).to_have_count(120)
    first = tiles.first.get_by_role("link")
    first.focus()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 119)):
        page.keyboard.press(key)
        expect(tiles.nth(place).get_by_role("link")).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(
        "() => document.activeElement.closest('.data-tile').offsetTop > "
        "document.querySelector('.data-tile').offsetTop"
    )
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"#/annotate/{shapes}/[0-9a-f]{{64}}"))


def test_revisions_are_compared(console: OpenConsole, shapes: str) -> None:
    page = console().open(f"#/data/{shapes}/revisions")
    page.get_by_label("From").select_option("0")
    expect(page).to_have_url(re.compile("from=0"))
    expect(page.get_by_role("heading", name="Images with changes: 2")).to_be_visible()
    table = page.get_by_role("group", name="Compare").get_by_role("table")
    expect(table.get_by_role("rowheader", name="all classes")).to_be_visible()
    expect(page.locator(".data-changed li")).to_have_count(2)
    page.get_by_role("link", name=f"Images {shapes}@0").click()
    expect(page.get_by_text("You see revision 0.")).to_be_visible()


def test_a_dataset_is_exported(console: OpenConsole, shapes: str) -> None:
    page = console().open(f"#/data/{shapes}")
    page.get_by_role("button", name="Export").click()
    page.get_by_label("Format").select_option("coco")
    page.get_by_label("With the images").uncheck()
    with page.expect_download(timeout=WAIT) as download:
        page.get_by_role("link", name="Download").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        documents = [
            json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")
        ]
    assert sum(len(document["images"]) for document in documents) == 150


def test_a_dataset_is_deleted_by_its_name(console: OpenConsole, live: Server) -> None:
    files = {"file": ("doomed.zip", packed(street({"train/a.png": 0, "val/b.png": 1})))}
    made = httpx.post(f"{live.url}/api/datasets", files=files, timeout=WAIT / 1000)
    page = console().open(f"#/data/{made.json()['id']}")
    page.get_by_role("button", name="Delete").click()
    act = page.get_by_role("button", name="Delete for good")
    expect(act).to_have_attribute("aria-disabled", "true")
    page.get_by_label("Type doomed to confirm").fill("doomed")
    act.click()
    expect(page).to_have_url(re.compile("#/data$"))
    expect(page.get_by_text("doomed is deleted.")).to_be_visible()


def test_a_model_annotates_a_dataset(
    console: OpenConsole, live: Server, picture: Callable[..., bytes]
) -> None:
    images = [("file", (f"{seed}.jpg", picture(seed=seed))) for seed in range(3)]
    data = {"classes": "stop", "name": "Frames"}
    made = httpx.post(f"{live.url}/api/datasets", files=images, data=data, timeout=WAIT / 1000)
    assert made.status_code == 201, made.text
    page = console().open(f"#/data/{made.json()['id']}")
    page.get_by_role("button", name="Pre-annotate").click()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("The new dataset is ready.")).to_be_visible(timeout=LONG)
    page.get_by_role("link", name="Open it").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Frames")


def test_the_addresses_for_tools_are_shown(console: OpenConsole, live: Server, shapes: str) -> None:
    page = console().open(f"#/data/{shapes}/connect")
    expect(page.get_by_text(f"{live.url}/label-studio", exact=True)).to_be_visible()
    expect(page.get_by_text(f"XANYLABELING_SERVER_URL={live.url}")).to_be_visible()


def parts(dataset: str) -> list[str]:
    tabs = ("", "/images", "/queue", "/revisions?from=0", "/connect")
    return ["#/data", "#/data/upload", "#/data/new", *(f"#/data/{dataset}{tab}" for tab in tabs)]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_part_is_accessible(
    console: OpenConsole, shapes: str, theme: str, language: str
) -> None:
    shown = console(theme=theme, language=language)
    for part in parts(shapes):
        page = shown.open(part)
        page.get_by_role("main").get_by_role("heading", level=1).wait_for()
        assert shown.violations() == [], part


def test_no_part_scrolls_sideways_on_a_phone(console: OpenConsole, shapes: str) -> None:
    shown = console(width=360, height=740)
    for part in parts(shapes):
        page = shown.open(part)
        page.get_by_role("main").get_by_role("heading", level=1).wait_for()
        assert shown.too_wide() == [], part


def test_a_dialog_fits_a_phone(console: OpenConsole, shapes: str) -> None:
    shown = console(width=360, height=740)
    page = shown.open(f"#/data/{shapes}")
    page.get_by_role("button", name="Export").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert shown.too_wide() == []
    assert shown.violations() == []
