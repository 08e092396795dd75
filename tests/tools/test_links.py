from tools.links import main


def test_a_link_to_nowhere_is_named(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no site" in capsys.readouterr().err
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.png").write_bytes(b"")
    good = '<a href="sub/x.html#there">x</a> <a href="#top">up</a> <img src="a%20b.png?v=1">'
    elsewhere = '<a href="https://example.org/x">e</a> <a href="mailto:x@example.org">m</a>'
    (tmp_path / "index.html").write_text(good + elsewhere)
    (tmp_path / "sub" / "x.html").write_text('<h1 id="there"></h1><a href="..">home</a>')
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "2 pages, 0 links to nowhere\n"
    bad = ["sub/x.html#gone", "missing.html", "../outside.html", "#nowhere"]
    (tmp_path.parent / "outside.html").write_text("")
    links = "".join(f'<a href="{link}"></a>' for link in bad)
    (tmp_path / "index.html").write_text(good + links)
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"index.html: {link} is not there" for link in bad
    ]
