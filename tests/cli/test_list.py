"""`--help` and `list`: every command's, group's and key's line."""

from cnnbench.__main__ import COMMANDS, main
from cnnbench.config.compose import compose, groups


def test_help_names_every_key_and_choice(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for group, choices in groups().items():
        assert group in text
        for choice in choices:
            assert choice in text
    config = compose([]).as_dict()
    for key in config.keys() - {"choices", "channels_last", *groups()}:
        assert f"{key}=" in text
    for key in config["trainer"]:
        assert f"trainer.{key}=" in text
    for key in config["data"].keys() - {"_target_", "fingerprint", "typed_root"}:
        assert f"data.{key}=" in text


def test_list_prints_the_first_comment_of_each_choices_file(capsys):
    assert main(["list", "model"]) == 0
    text = capsys.readouterr().out
    assert "lenet5" in text
    assert "LeNet-5 with ReLU" in text
    assert "mnist" not in text.split()


def test_list_without_a_group_prints_all_groups_and_those_of_a_users_folder(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# My own net\n_target_: mypkg.MyNet\n")
    assert main(["list", "--config-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(groups())
    assert any(line.split() == ["mine", "My", "own", "net"] for line in lines)


def test_help_marks_the_default_choices_and_keeps_lines_short(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    assert "lenet5*" in text
    assert "mnist5k*" in text
    assert max(map(len, text.splitlines())) <= 140


def test_help_has_a_line_for_every_command(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    assert [command for command in COMMANDS if f"\ncnnbench {command} " not in text] == []
