"""Pages of the alert log: HTML, in which nothing of what others wrote is markup."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any, Final

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_LONGEST_TEXT: Final = 500

_STYLE: Final = """
body { font: 17px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .4rem .6rem; vertical-align: top;
border-bottom: 1px solid #ccc } .critical { border-left: .5rem solid #c00 } .warning { border-left: .5rem solid #e90 }
.good { color: #060 } .bad { color: #c00; font-weight: bold } code, pre { background: #f2f2f2 } pre { padding: .6rem;
overflow-x: auto } small { color: #555 }
"""


def page(title: str, body: str, refresh: bool = False) -> str:
    """Return an HTML page; `body` is HTML already."""
    again = '<meta http-equiv="refresh" content="30">' if refresh else ""
    return (
        f'<!DOCTYPE html><html lang="ko"><head><meta charset="utf-8">{again}'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def row(alert: Mapping[str, Any]) -> str:
    """Return the row of an alert in the table of those that are firing."""
    labels, annotations = alert["labels"], alert["annotations"]
    name = labels["alertname"]
    severity = labels.get("severity", "")
    kind = severity if severity in ("critical", "warning") else ""
    title = html.escape(name)
    link = f'<a href="/runbooks/{title}">{title}</a>' if NAME.fullmatch(name) else title
    texts = (annotations.get(key, "") for key in ("summary_ko", "summary", "description"))
    told = "<br>".join(html.escape(text[:_LONGEST_TEXT]) for text in texts if text)
    return (
        f'<tr><td class="{kind}"><b>{link}</b> {html.escape(severity)}<br>{told}</td>'
        f"<td>{html.escape(labels.get('host', ''))}</td><td>{html.escape(str(alert.get('startsAt', '')))}</td></tr>"
    )


def render_markdown(text: str) -> str:
    """Return the HTML of a runbook: headings, paragraphs, lists, code. Anything else stays the text it is."""
    parts: list[str] = []
    # Text and code take turns.
    for number, block in enumerate(re.split(r"^```[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)):
        if number % 2:
            parts.append(f"<pre>{html.escape(block.rstrip())}</pre>")
        else:
            parts += [_paragraph(paragraph) for paragraph in re.split(r"\n\s*\n", block) if paragraph.strip()]
    return "\n".join(parts)


def _paragraph(text: str) -> str:
    text = text.strip("\n")
    if heading := re.fullmatch(r"(#{1,3}) (.+)", text):
        level = len(heading[1])
        return f"<h{level}>{_inline(heading[2])}</h{level}>"
    for tag, bullet in (("ul", r"- "), ("ol", r"[0-9]+\. ")):
        if re.match(bullet, text):
            items = re.split(rf"^{bullet}", text, flags=re.MULTILINE)[1:]
            return f"<{tag}>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</{tag}>"
    return f"<p>{_inline(text)}</p>"


def _inline(text: str) -> str:
    pieces = html.escape(text.strip()).split("`")
    marked = [f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces)]
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", "".join(marked))
