"""``htsr report`` and ``htsr watch --html`` on runs and kept results."""

import pytest
import torch
from torch import nn

import htsr
from htsr.cli.main import main


@pytest.fixture
def runs(tmp_path):
    for seed in range(2):
        torch.manual_seed(seed)
        with htsr.Monitor(nn.Linear(30, 20), every=1, run_dir=tmp_path / "runs" / str(seed), bootstrap=0) as monitor:
            monitor.step()
    return tmp_path / "runs"


def test_one_run_several_and_a_directory_of_them(runs, tmp_path, capsys, read_page, monkeypatch):
    assert main(["report", str(runs / "0")]) == 0
    assert read_page((runs / "0" / "report.html").read_text())["kind"] == "history"
    assert main(["report", str(runs)]) == 0
    assert len(read_page((runs / "report.html").read_text())["runs"]) == 2
    monkeypatch.chdir(tmp_path)
    assert (
        main(["report", str(runs / "0"), str(runs / "1"), "-o", "both.html", "-o", "both.csv", "-o", "both.json"]) == 0
    )
    assert read_page((tmp_path / "both.html").read_text())["kind"] == "runs"
    assert (tmp_path / "both.csv").read_text().count("\n") == 3
    assert "wrote both.html" in capsys.readouterr().out


def test_open_shows_the_page_in_the_browser(runs, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("webbrowser.open", lambda address: not shown.append(address))
    assert main(["report", str(runs / "0"), "--open"]) == 0
    assert shown == [(runs / "0" / "report.html").as_uri()]
    assert main(["report", str(runs / "0"), "--open", "-o", str(runs / "0.csv")]) == 2
    assert "--open needs a page" in capsys.readouterr().err
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    assert main(["report", str(runs / "0"), "--open"]) == 0
    assert "no browser found" in capsys.readouterr().err


def test_the_page_of_a_kept_audit_names_its_command(tmp_path, read_page):
    torch.save({"w": torch.randn(30, 20)}, tmp_path / "m.pt")
    kept = tmp_path / "a.htsr"
    assert main(["audit", str(tmp_path / "m.pt"), "-o", str(kept), "--bootstrap", "20"]) == 0
    assert main(["report", str(kept)]) == 0
    foot = dict(read_page((tmp_path / "a.html").read_text())["foot"])
    assert foot["command"] == f"htsr audit {tmp_path / 'm.pt'} -o {kept} --bootstrap 20"


@pytest.mark.parametrize("paths", [["m.txt"], ["a.htsr", "."], ["nothing"]])
def test_what_it_does_not_take(tmp_path, monkeypatch, capsys, paths):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.txt").write_text("x")
    (tmp_path / "a.htsr").write_text("x")
    assert main(["report", *paths]) == 2
    assert "expected the directory of a run" in (message := capsys.readouterr().err) or "no such directory" in message


def test_watch_writes_the_page_of_a_growing_run(runs, tmp_path, read_page, capsys):
    page = tmp_path / "live.html"
    assert main(["watch", str(runs / "0"), "--once", "--html", str(page)]) == 0
    assert read_page(page.read_text())["runs"][0]["steps"] == [0, 1]
    assert main(["watch", str(runs / "0"), "--once", "--html", str(tmp_path / "live.csv")]) == 2
    assert "expected a suffix among .html" in capsys.readouterr().err
