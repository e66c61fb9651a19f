from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from settings import Settings, refusals, settings_without_effect, unknown_variables


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cors_origins", "", ()),
        ("cors_origins", "http://a, http://b", ("http://a", "http://b")),
        ("data_roots", "/srv/a,/srv/b/../c", (Path("/srv/a"), Path("/srv/c"))),
        (
            "data_roots",
            " /srv/a : /srv/b,, /srv/c ",
            tuple(map(Path, ("/srv/a", "/srv/b", "/srv/c"))),
        ),
        ("cors_origins", "HTTPS://A.example/,*", ("https://a.example", "*")),
        ("trusted_proxies", "127.0.0.1, 10.0.0.0/8", ("127.0.0.1", "10.0.0.0/8")),
        ("trusted_proxies", "10.0.0.7/8", ("10.0.0.0/8",)),
        ("root_path", "/vision/", "/vision"),
        ("hosts", "A.example., *.b.example", ("a.example", "*.b.example")),
        ("allow_download", "", "auto"),
        ("allow_download", "TRUE", "always"),
        ("allow_download", "1", "always"),
        ("allow_download", "false", "never"),
        ("allow_download", "Never", "never"),
        (
            "download_url",
            "https://mirror.example:8443/weights/",
            "https://mirror.example:8443/weights",
        ),
        ("max_body_mb", "1.5", 1.5),
        ("home", "/srv/x/../home", Path("/srv/home")),
    ],
)
def test_read_from_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object
) -> None:
    monkeypatch.setenv(f"VISIONLOOP_{name.upper()}", value)
    assert getattr(Settings(), name) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue_length", "0"),
        ("admin_token", " \n"),
        ("allow_download", "sometimes"),
        ("download_url", "ftp://mirror.example"),
        ("download_url", "https://me:secret@mirror.example"),
        ("download_url", "mirror.example"),
        ("device", "tpu"),
        ("image_url", "yes"),
        ("max_pixels", "many"),
        ("cors_origins", "a.example"),
        ("cors_origins", "https://a.example/page"),
        ("hosts", "https://a.example"),
        ("trusted_proxies", "*"),
        ("trusted_proxies", "proxy.example"),
        ("hosts", "a.example:3000"),
    ],
)
def test_unusable_value_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"VISIONLOOP_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("VISIONLOOP_TOKN", "VISIONLOOP_TOKEN"),
        ("visionloop_admintoken", "VISIONLOOP_ADMIN_TOKEN"),
        ("VISIONLOOP_DATA_ROOT", "VISIONLOOP_DATA_ROOTS"),
        ("VISIONLOOP_HOST", "VISIONLOOP_HOSTS"),
    ],
)
def test_a_misspelt_variable_prevents_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    monkeypatch.setenv(variable, "hunter2")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert refusals(caught.value) == [f"{variable.upper()} is not a setting: did you mean {name}?"]


def test_variables_of_others_are_let_pass_with_a_warning_if_unknown(tmp_path: Path) -> None:
    kubernetes = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_3000_TCP",
                  "PORT_3000_TCP_ADDR")  # fmt: skip
    names = [f"VISIONLOOP_{name}" for name in (*kubernetes, "JOB", "URL", "TOKEN", "COLOUR")]
    assert unknown_variables(dict.fromkeys([*names, "OTHER"], "x")) == ["VISIONLOOP_COLOUR"]
    settings = Settings(data_roots=(tmp_path, tmp_path / "missing"))
    colour, root = settings_without_effect(settings, {"VISIONLOOP_COLOUR": "red"})
    assert colour == "VISIONLOOP_COLOUR is not a setting and has no effect."
    assert root == f"VISIONLOOP_DATA_ROOTS: there is no folder {tmp_path / 'missing'}."


def test_without_a_home_folder_one_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    for name in ("HOME", "VISIONLOOP_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ValidationError, match=r"home folder of ~/\.visionloop is unknown; give"):
        Settings()
    assert Settings(home=Path("/srv/home")).home == Path("/srv/home")


def test_secrets_are_masked() -> None:
    settings = Settings(token="hunter2", home=Path("/srv/home"))
    assert settings.masked()["token"] == "(set)"
    assert "hunter2" not in repr(settings)
    assert str(settings.sqlalchemy_url) == "sqlite:////srv/home/visionloop.db"
    assert settings.max_body_bytes == 32 * 1024 * 1024


def test_the_password_in_a_database_url_is_masked() -> None:
    settings = Settings.model_construct(database_url="postgresql+psycopg://me:hunter2@db/signs")
    assert settings.masked()["database_url"] == "postgresql+psycopg://me:***@db/signs"
    parameter = "postgresql+psycopg://me@db/signs?password=hunter2&sslmode=require"
    settings = Settings.model_construct(database_url=parameter)
    assert settings.masked()["database_url"] == "postgresql+psycopg://me@db/signs?…"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("hunter2", "not a database URL"),
        ("sqlite:///hunter2.db", "needs the full path of its file; write sqlite:////PATH"),
        ("sqlite:///file:hunter2.db?uri=true", "needs the full path of its file"),
        ("sqlite:///file:/hunter2.db", "A file: URL needs uri=true"),
        ("sqlite:///file:/hunter2.db?uri=no", "A file: URL needs uri=true"),
        ("sqlite:///file:/hunter2.db?uri=perhaps", "not a database URL"),
        *(
            (f"sqlite:{rest}", "in memory is not shared: .* Write sqlite:////PATH, or unset it")
            for rest in (
                "//",
                "///",
                "///:memory:",
                "///file:?uri=true",
                "///file::memory:?cache=shared&uri=true",
                "///file:%3Amemory%3A?uri=true",
                "///file:/hunter2?mode=memory&uri=true",
                "////hunter2.db?vfs=memdb",
            )
        ),
        ("postgresql://me:hunter2@db:port/signs", "not a database URL"),
        ("hunter2://db/signs", "not a database URL"),
        ("postgresql+asyncpg://me:hunter2@db/signs", "kind of database or driver is not supported"),
        ("postgresql+psycopg2://me:hunter2@db/signs", "write postgresql\\+psycopg://USER"),
        ("mysql+pymysql://me:hunter2@db/signs", "kind of database or driver is not supported"),
    ],
)
def test_a_database_url_that_cannot_work_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, sentence: str
) -> None:
    monkeypatch.setenv("VISIONLOOP_DATABASE_URL", url)
    with pytest.raises(ValidationError, match=sentence) as caught:
        Settings()
    assert all("hunter2" not in found["msg"] for found in caught.value.errors())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////srv/signs.db",
        "sqlite+pysqlite:////srv/:memory:",
        "sqlite:///file:/srv/signs.db?uri=true&mode=rw",
        "sqlite:///file:///srv/signs.db?uri=true",
        "sqlite:///file:/srv/signs.db?uri=1",  # as SQLAlchemy reads a truth value
        "postgresql+psycopg://me@db/signs",
    ],
)
def test_a_database_url_that_works_is_taken(url: str) -> None:
    assert Settings(database_url=url).database_url == url


WEBHOOKS = "https://me:hunter2@a.example/x?k=hunter2, http://b.example:8080,http://b.example:8080"


def test_webhook_addresses_are_shown_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_URL", WEBHOOKS)
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", "a secret that is long enough")
    settings = Settings()
    assert settings.webhook_url == tuple(part.strip() for part in WEBHOOKS.split(",")[:2])
    shown = settings.masked()
    assert shown["webhook_url"] == "('https://a.example/x?…', 'http://b.example:8080')"
    assert shown["webhook_secret"] == "(set)"


@pytest.mark.parametrize(
    "address",
    ["hunter2.example", "ftp://hunter2.example", "http://", "http://hunter2:0/", "http://a:hunter2",
     "http://hunter2/#x", "http://hunter2/a b", "http://[hunter2/", "https://a, hunter2"],
)  # fmt: skip
def test_a_webhook_that_is_no_address_prevents_the_start(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_URL", address)
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", "a secret that is long enough")
    with pytest.raises(ValidationError) as caught:
        Settings()
    (said,) = refusals(caught.value)
    assert said.startswith("VISIONLOOP_WEBHOOK_URL: Address ")
    assert "hunter2" not in said


def test_a_webhook_needs_a_secret_of_some_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_URL", "https://a.example")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert refusals(caught.value)[0].startswith(
        "VISIONLOOP_WEBHOOK_URL needs VISIONLOOP_WEBHOOK_SECRET"
    )
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", "short")
    with pytest.raises(ValidationError, match="at least 16 characters"):
        Settings()


def test_a_webhook_secret_alone_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", "a secret that is long enough")
    assert settings_without_effect(Settings(), {}) == [
        "VISIONLOOP_WEBHOOK_SECRET has no effect without VISIONLOOP_WEBHOOK_URL."
    ]


CLUSTER = {
    "VISIONLOOP_CLUSTER_URL": "http://ray-head:8265",
    "VISIONLOOP_DATABASE_URL": "postgresql+psycopg://db/signs",
    "VISIONLOOP_STORE_URL": "s3://signs",
    "VISIONLOOP_TRAIN_SLOTS": "4",
}


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("VISIONLOOP_DATABASE_URL", "VISIONLOOP_DATABASE_URL of a PostgreSQL"),
        ("VISIONLOOP_STORE_URL", "VISIONLOOP_STORE_URL, as its nodes share no folder"),
        ("VISIONLOOP_TRAIN_SLOTS", "VISIONLOOP_TRAIN_SLOTS, the number of jobs"),
    ],
)
def test_a_cluster_needs_what_its_nodes_can_reach(
    monkeypatch: pytest.MonkeyPatch, missing: str, sentence: str
) -> None:
    monkeypatch.delenv("VISIONLOOP_DATABASE_URL", raising=False)
    for name, value in CLUSTER.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert refusals(caught.value)[0].startswith(f"VISIONLOOP_CLUSTER_URL needs {sentence}")
    monkeypatch.setenv(missing, CLUSTER[missing])
    assert Settings().cluster_url == "http://ray-head:8265"


def test_a_token_of_a_cluster_alone_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_CLUSTER_TOKEN", "a token of a cluster")
    assert settings_without_effect(Settings(), {}) == [
        "VISIONLOOP_CLUSTER_TOKEN has no effect without VISIONLOOP_CLUSTER_URL."
    ]


def test_several_gpus_are_refused_where_jobs_use_none() -> None:
    assert Settings().train_gpus == 1
    assert Settings(train_gpus=2).train_gpus == 2
    with pytest.raises(ValidationError) as caught:
        Settings(train_gpus=2, device="cpu")
    assert (
        "VISIONLOOP_TRAIN_GPUS above 1 needs VISIONLOOP_DEVICE cuda or auto"
        in refusals(caught.value)[0]
    )
