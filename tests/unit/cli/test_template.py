"""Templates: Go's for what people use, and no way from a template to a Python object."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.cli.template import Template, TemplateError
from minidock.errors import MinidockError

VALUE: dict[str, Any] = {
    "Name": "/web",
    "State": {"Running": True, "Pid": 12, "Error": ""},
    "Mounts": [{"Source": "/a"}, {"Source": "/b"}],
    "Labels": {"x": "1", "a-b": "2"},
    "None": None,
    "Tags": ["one", "two"],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "/web"),
        ("{{ .State.Pid }}", "12"),
        ("{{.State.Running}}", "true"),
        ("{{json .Mounts}}", '[{"Source": "/a"}, {"Source": "/b"}]'),
        ("{{json .State.Error}}", '""'),
        ("{{.Name | upper | json}}", '"/WEB"'),
        ('{{join .Tags ", "}}', "one, two"),
        ('{{index .Labels "a-b"}}', "2"),
        ('{{index .Labels "none"}}', ""),
        ("{{index .Tags 1}}", "two"),
        ("{{len .Mounts}}", "2"),
        ("{{range .Mounts}}<{{.Source}}>{{end}}", "</a></b>"),
        ("{{range .Mounts}}{{.Source}} of {{$.Name}};{{end}}", "/a of /web;/b of /web;"),
        ("{{range .State.Error}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Error}}bad{{else if .State.Running}}up{{else}}down{{end}}", "up"),
        ('{{if eq .Name "/web" "/x"}}yes{{end}}', "yes"),
        ("{{if and .Name (not .State.Error)}}yes{{end}}", "yes"),
        ("{{with .State}}{{.Pid}}{{end}}", "12"),
        ("{{range .Labels}}{{.}}{{end}}", "21"),
        ("{{.None}}", "<no value>"),
        ("{{.Labels}}", "map[a-b:2 x:1]"),
        ("{{.Tags}}", "[one two]"),
        ("a {{- .Name -}} b", "a/webb"),
        ("{{/* a remark */}}x", "x"),
        (r"{{.Name}}\t{{.State.Pid}}\n", "/web\t12\n"),
        ('{{pad .Name 1 2}}{{truncate .Name 2}}{{title "ab"}}{{lower "AB"}}', " /web  /wAbab"),
        ('{{println "a" 1}}{{split "a,b" ","}}', "a 1\n[a b]"),
        ('{{or .State.Error "none"}}', "none"),
        ("{{print `raw` true}}", "rawtrue"),
        ("{{$n := .Name}}{{$n}} {{$n | upper}}", "/web /WEB"),
        ("{{range $i, $tag := .Tags}}{{$i}}={{$tag}};{{end}}", "0=one;1=two;"),
        ("{{range $key, $_ := .Labels}}{{$key}} {{end}}", "a-b x "),
        ("{{range $m := .Mounts}}{{$m.Source}}{{.Source}}{{$.Name}} {{end}}", "/a/a/web /b/b/web "),
        ("{{with $s := .State}}{{$s.Pid}}{{end}}", "12"),
        ('{{printf "%.2s|%4d|%q|%-4s|%v%%" .Name .State.Pid .Name "a" true}}', '/w|  12|"/web"|a   |true%'),
        ('{{.Name | printf "%s!"}}', "/web!"),
        ("{{slice .Name 1 3}}{{slice .Name 2}}", "weeb"),
        ("{{if gt (len .Mounts) 1}}{{lt 1 2}}{{le 2 2}}{{ge 1 2}}{{end}}", "truetruefalse"),
        ("{{.Labels.none}}", "<no value>"),
        ("{{.Labels.x}}", "1"),
        ('{{index .None "x"}}', ""),
    ],
)
def test_templates(template: str, text: str) -> None:
    assert Template(template).render(VALUE) == text


@pytest.mark.parametrize(
    "template",
    [
        *("{{", "{{.Name", "{{.Name}} {{", "{{end}}", "{{else}}", "{{if .x}}", "{{range .x}}{{else}}", "{{nofunc .x}}"),
        *("{{$a, $b := .x}}", "{{if $a, $b := .x}}{{end}}", r'{{"\d"}}', "{{$x := }}"),
        *("{{}}", "{{.a | }}", "{{(.a}}", "{{.a)}}", "{{%}}", "{{import}}", '{{"open}}', "{{if .x}}{{end}}{{end}}"),
    ],
)
def test_what_cannot_be_parsed_is_status_64(template: str) -> None:
    with pytest.raises(TemplateError, match="template parsing error") as caught:
        Template(template)
    assert caught.value.exit_status == 64


@pytest.mark.parametrize(
    "template",
    [
        *("{{.Nope}}", "{{.Name.Sub}}", "{{.Name.__class__}}", "{{.__class__}}", "{{.Tags.append}}"),
        *('{{printf "%d" .Name}}', '{{printf "%s"}}', "{{range .Name}}{{end}}", "{{json}}", "{{slice .Name}}"),
        *("{{join .Name 1}}", "{{.Name 1}}", "{{index .Tags 9}}", "{{.Name | .State}}"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error(template: str) -> None:
    with pytest.raises(MinidockError, match="template error") as caught:
        Template(template).render(VALUE)
    assert caught.value.exit_status == 1


def test_a_variable_ends_with_its_block() -> None:
    with pytest.raises(TemplateError, match="undefined variable"):
        Template("{{if .Name}}{{$x := 1}}{{end}}{{$x}}").render(VALUE)
    with pytest.raises(MinidockError, match="wrong number of arguments"):
        Template("{{json}}").render(VALUE)


def test_a_missing_field_names_those_there_are() -> None:
    with pytest.raises(MinidockError) as caught:
        Template("{{.Nope}}").render(VALUE)
    assert "Name, State" in caught.value.hint


def test_the_fields_of_a_table_are_its_headers() -> None:
    assert Template(r"{{.ID}}\t{{upper .Names}}\t{{.ID}}").fields() == ["ID", "Names"]


@given(st.text(alphabet=list('{}.|()"` aNn-_end')))
def test_any_text_is_a_template_or_an_error(text: str) -> None:
    try:
        Template(text).render(VALUE)
    except MinidockError:
        return
