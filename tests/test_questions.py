"""Open questions and quizzes: one of each in every notebook, each option explained, rubrics for teachers alone."""

from pathlib import Path

from armap_lite.course import notebooks
from armap_lite.course.__main__ import main
from armap_lite.course.questions import QUESTIONS, points, quiz, rubric


def cells(tag: str, book: dict) -> list[str]:
    return [cell["source"] for cell in book["cells"] if tag in cell["metadata"].get("tags", [])]


def test_every_notebook_has_an_open_question_a_task_in_its_world_and_a_quiz():
    books = {path.name[:2]: book for path, book in notebooks.course()}
    assert set(books) == set(QUESTIONS)
    for number, book in books.items():
        assert len(cells("open", book)) == 1
        kinds = [cell["cell_type"] for cell in book["cells"] if "in-world" in cell["metadata"].get("tags", [])]
        assert kinds[0] == "markdown" and set(kinds[1:]) <= {"code"}  # a task, and perhaps code to start from
        assert cells("quiz", book)[1].endswith(f'quiz("{number}")')
        assert points(number) == 4


def test_each_question_has_one_right_option_and_says_why_of_all():
    texts = [text for one in QUESTIONS.values() for asked in one["quiz"] for text, _, _ in asked["options"]]
    assert len(texts) == 9 * 3 * 3
    for number in QUESTIONS:
        page = quiz(number)._repr_html_()
        assert page.count("✓") == 3 and page.count("✗") == 6 and page.count("<details>") == 9
        for asked in QUESTIONS[number]["quiz"]:
            assert len({why for _, _, why in asked["options"]}) == 3 and all(why for _, _, why in asked["options"])
    places = [
        [right for _, right, _ in asked["options"]].index(True) for q in QUESTIONS.values() for asked in q["quiz"]
    ]
    assert len(set(places)) == 3  # the right one is not always at the same place


def test_rubrics_are_in_the_instructors_copies_alone(tmp_path: Path):
    for kind in ("student", "instructor"):
        assert main([kind, str(tmp_path / kind)]) == 0
        for path in sorted((tmp_path / kind).glob("*.ipynb")):
            for tag, task in (("open", "rubric"), ("in-world", "in_world")):
                question, *code = cells(tag, notebooks.read(path))
                assert (rubric(path.name[:2], task) in question) == (kind == "instructor")
                assert not any("Points" in source for source in code)
