"""What the server says of a prompt while it is typed."""

from __future__ import annotations

from pathlib import Path

from asymflow.generation import metadata, pipeline
from asymflow.io import images
from asymflow.models.embedded import ideas
from asymflow.models.embedded.library import shipped

from .conftest import Running, Serve


def test_a_prompt_of_another_language_is_drawn_as_what_it_means(
    studio: Running, tmp_path: Path
) -> None:
    said = studio.http.get("/api/words", params={"prompt": "ein roter Fuchs"}).json()
    assert (said["drawn"], said["language"], said["known"]) == ("a red fox", "de", True)
    ours, same = (
        studio.over(studio.ask(prompt, seed=3)["id"])["pictures"][0]
        for prompt in ("ein roter Fuchs", "a red fox")
    )
    assert ours["prompt"] == "ein roter Fuchs"
    files: list[Path] = []
    for each in (ours, same):
        files.append(tmp_path / f"{each['id']}.png")
        files[-1].write_bytes(studio.http.get(each["url"]).content)
    assert (images.read(files[0]) == images.read(files[1])).all()
    text = images.read_record(files[0])
    assert text is not None
    record = metadata.from_json(text, "the picture")
    assert (record.prompt, record.drawn) == ("ein roter Fuchs", "a red fox")
    again = studio.http.post(
        "/api/settings", content=files[0].read_bytes(), headers={"Content-Type": "image/png"}
    ).json()
    assert again["request"]["prompt"] == "a red fox"


def test_the_language_of_the_page_decides_what_a_word_means(studio: Running) -> None:
    def read(**more: str) -> str:
        return studio.http.get("/api/words", params={"prompt": "fil", **more}).json()["drawn"]

    assert read(language="tr") == "an elephant" != read(language="fr")
    job = studio.over(studio.ask("fil", language="tr")["id"])
    file = studio.http.get(job["pictures"][0]["url"]).content
    assert b"an elephant" in file


def test_unknown_words_have_names_to_choose_instead(studio: Running) -> None:
    said = studio.http.get("/api/words", params={"prompt": "a 🦊 penguinn"}).json()
    kinds = [(word["text"], word["kind"]) for word in said["words"]]
    assert kinds == [("a", "other"), ("🦊", "thing"), ("penguinn", "unknown")]
    assert said["words"][2]["near"][0] == "penguin"
    # JavaScript counts two units for a fox.
    assert [(word["start"], word["end"]) for word in said["words"]] == [(0, 1), (2, 4), (5, 13)]
    nothing = studio.http.get("/api/words", params={"prompt": "penguinn"}).json()
    assert (nothing["known"], nothing["near"][0]) == (False, "penguin")
    assert "like emoji" in nothing["draws"]


def test_a_model_that_reads_any_text_has_nothing_to_say(serve: Serve) -> None:
    said = serve().http.get("/api/words", params={"prompt": "ein roter Fuchs"}).json()
    assert (said["known"], said["drawn"], said["words"]) == (True, "ein roter Fuchs", [])


def test_bad_questions_are_refused(studio: Running) -> None:
    for params in ({}, {"prompt": "x" * 5000}, {"prompt": "a fox", "language": "d e"}):
        assert studio.http.get("/api/words", params=params).status_code == 400
    missing = studio.http.get("/api/words", params={"prompt": "a", "model": "none"})
    assert missing.status_code == 400


def test_info_says_what_the_model_draws_and_draws_well(studio: Running) -> None:
    info = studio.http.get("/api/info").json()
    assert info["ideas"] == list(ideas.load())
    assert info["idea_names"] == ideas.names()
    assert info["card"]["draws"] == pipeline.load().card.draws
    assert info["card"]["flat"]


def test_ideas_are_drawn_alike_in_all_languages(studio: Running) -> None:
    info = studio.http.get("/api/info").json()
    assert set(info["idea_names"]) >= {"de", "ja"}
    for language, names in info["idea_names"].items():
        idea = next(each for each in info["ideas"] if each in names)
        asked = {"prompt": names[idea], "language": language}
        said = studio.http.get("/api/words", params=asked).json()
        assert said["known"]
        assert shipped().find(said["drawn"]) == shipped().find(idea), (language, idea)
