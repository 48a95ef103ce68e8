"""The pages on which a person approves jobs: plain HTML that works without scripts.  All text of others is escaped.

Nothing here is loaded from elsewhere, and the only addresses are those of `silos.approvals_server`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from coordinator.statements import Approval
from silos.approvals import MAX_REASON, Decided, Pending
from silos.approvals_text import Section, kind_in_words, plain, when

STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#515c6b;--line:#d5dbe3;--page:#f4f6f9;--card:#fff;--accent:#1a5596;
--yes:#1c6b3a;--no:#a32020;--on:#fff;--note:#fdf3d8;--noteink:#5a4300}
@media (prefers-color-scheme:dark){:root{--ink:#e7ebf1;--soft:#a9b4c2;--line:#39434f;--page:#12161b;--card:#1b2129;
--accent:#8cbcf2;--yes:#7fd6a0;--no:#f5a3a3;--on:#10151b;--note:#3a3115;--noteink:#f3dfa5}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:860px;padding:28px 20px 60px;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,sans-serif}
header{display:flex;justify-content:space-between;gap:16px;color:var(--soft);margin-bottom:20px}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 6px}h2{font-size:1.1rem;margin:0 0 8px}
a{color:var(--accent)}p{margin:0 0 10px}.soft{color:var(--soft)}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 20px;margin:0 0 16px}
.card ul{margin:0;padding-left:20px}li{margin:3px 0;overflow-wrap:anywhere}
.note{background:var(--note);color:var(--noteink);border-radius:10px;padding:12px 20px;margin:0 0 16px}
.said{border-left:4px solid var(--accent)}
code{font:0.9em ui-monospace,monospace;overflow-wrap:anywhere}
label{display:block;font-weight:600;margin:10px 0 4px}
input,select,textarea{width:100%;font:inherit;color:inherit;background:var(--page);border:1px solid var(--soft);
border-radius:6px;padding:8px 10px}
button{font:inherit;font-weight:600;border:0;border-radius:6px;padding:10px 22px;margin-top:14px;color:var(--on);cursor:pointer}
.yes{background:var(--yes)}.no{background:var(--no)}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.two{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(300px,1fr))}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.93rem}
th,td{text-align:left;vertical-align:top;padding:7px 14px 7px 0;border-bottom:1px solid var(--line)}
th{color:var(--soft)}td:first-child{white-space:nowrap}
"""


@dataclass(frozen=True)
class Who:
    """Whom the forms offer.  can_sign: approvers who have not answered and whose key is kept here.  named: all approvers."""

    can_sign: Sequence[str]
    named: Sequence[str]


def overview(silo: str, waiting: Sequence[tuple[Pending, Sequence[Approval]]], decided: Sequence[Decided]) -> str:
    """Everything that waits, then what came of earlier questions."""
    body = [f"<h1>Jobs that wait for approval at {_text(silo)}</h1>"]
    body += [_card(one, yes) for one, yes in waiting] or ['<p class="card">Nothing waits for you.</p>']
    if decided:
        rows = "".join(_row(one) for one in decided)
        head = "".join(f'<th scope="col">{name}</th>' for name in ("Decided", "Purpose", "Asked by", "Outcome"))
        body.append(
            f'<section class="card"><h2>Earlier decisions</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div></section>"
        )
    return page(f"Approvals at {silo}", "\n".join(body))


def question(
    pending: Pending, parts: Sequence[Section], said: Sequence[str], who: Who | None, csrf: str, error: str = ""
) -> str:
    """One waiting job, with the forms to answer.

    said: a sentence for each answer so far.  who: None if no more answers are needed.  csrf: what the forms must send back.
    error: about the last try.
    """
    body = [_head(pending)]
    if who is not None:
        body.append('<p><a href="#answer">Go to the answer</a></p>')
    if error:
        body.append(f'<p class="note" role="alert">{_text(error[:1].upper() + error[1:])}.</p>')
    body += [f'<p class="card said">{_text(one)}.</p>' for one in said]
    body += [_section(part) for part in parts]
    if who is not None:
        body.append(f'<div class="two" id="answer">{_yes_form(pending, who, csrf)}{_no_form(pending, who, csrf)}</div>')
    body.append(_digests(pending))
    return page(str(pending.spec["purpose"]), "\n".join(body), back=True)


def answered(decided: Decided, parts: Sequence[Section]) -> str:
    """One job that was decided."""
    said = f"{_sentence(decided)}, on {when(decided.decided_at)}"
    body = [_head(decided.asked), f'<p class="card said">{_text(said)}.</p>']
    body += [_section(part) for part in parts]
    body.append(_digests(decided.asked))
    return page(str(decided.asked.spec["purpose"]), "\n".join(body), back=True)


def message(title: str, sentence: str) -> str:
    """A page that says one thing."""
    return page(title, f"<h1>{_text(title)}</h1><p>{_text(sentence)}</p>")


def page(title: str, body: str, *, back: bool = False) -> str:
    """The frame of every page."""
    home = '<a href="/">All jobs</a>' if back else "<span></span>"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{_text(title)}</title><link rel="stylesheet" href="/style.css"></head>\n'
        f"<body><header>{home}<span>Accord</span></header><main>\n{body}\n</main></body></html>\n"
    )


def _head(pending: Pending) -> str:
    spec = pending.spec
    return (
        f"<h1>{_text(spec['purpose'])}</h1>"
        f'<p class="soft">{_text(pending.submitter)} asks {_text(pending.silo)} to '
        f"{_text(kind_in_words(spec['kind']))}; it can be approved until {_text(when(pending.valid_until))}.</p>"
    )


def _card(pending: Pending, yes: Sequence[Approval]) -> str:
    names = f" ({', '.join(one.name for one in yes)})" if yes else ""
    spec = pending.spec
    return (
        f'<section class="card"><h2><a href="/job/{pending.job}">{_text(spec["purpose"])}</a></h2>'
        f"<p>{_text(pending.submitter)} asks to {_text(kind_in_words(spec['kind']))}.</p>"
        f'<p class="soft">Asked on {_text(when(pending.asked_at))}, valid until {_text(when(pending.valid_until))}; '
        f"approved by {len(yes)} of {pending.needed}{_text(names)}.</p></section>"
    )


def _row(decided: Decided) -> str:
    asked = decided.asked
    link = f'<a href="/job/{asked.job}">{_text(asked.spec["purpose"])}</a>'
    return (
        f"<tr><td>{_text(when(decided.decided_at))}</td><td>{link}</td><td>{_text(asked.submitter)}</td>"
        f"<td>{_text(_sentence(decided))}</td></tr>"
    )


def _sentence(decided: Decided) -> str:
    return decided.sentence[:1].upper() + decided.sentence[1:]


def _section(part: Section) -> str:
    items = "".join(f"<li>{_text(line)}</li>" for line in part.lines)
    return f'<section class="card"><h2>{_text(part.heading)}</h2><ul>{items}</ul></section>'


def _yes_form(pending: Pending, who: Who, csrf: str) -> str:
    if not who.can_sign:
        return (
            '<section class="card"><h2>Approve</h2><p>No key of an approver who has not answered is kept in this home. '
            f"Use <code>accord job approve {pending.job} --as NAME --key FILE</code>.</p></section>"
        )
    return (
        f'<form class="card" method="post" action="/job/{pending.job}/approve"><h2>Approve</h2>{_hidden(csrf)}'
        f'<input type="hidden" name="spec_digest" value="{pending.spec_digest}">'
        f'<label for="approver">Approver</label><select id="approver" name="name">{_options(who.can_sign)}</select>'
        '<label for="passphrase">Passphrase of this approver</label>'
        '<input id="passphrase" name="passphrase" type="password" autocomplete="off" required>'
        '<button class="yes">Approve this job</button></form>'
    )


def _no_form(pending: Pending, who: Who, csrf: str) -> str:
    return (
        f'<form class="card" method="post" action="/job/{pending.job}/deny"><h2>Refuse</h2>{_hidden(csrf)}'
        f'<label for="refuser">Approver</label><select id="refuser" name="name">{_options(who.named)}</select>'
        '<label for="reason">Reason, which all participants can read</label>'
        f'<textarea id="reason" name="reason" rows="2" maxlength="{MAX_REASON}" required></textarea>'
        '<button class="no">Refuse this job</button></form>'
    )


def _hidden(csrf: str) -> str:
    return f'<input type="hidden" name="csrf" value="{csrf}">'


def _options(names: Sequence[str]) -> str:
    return "".join(f'<option value="{_text(name)}">{_text(name)}</option>' for name in names)


def _digests(pending: Pending) -> str:
    return (
        f'<p class="soft">An approval signs job <code>{pending.job}</code>, spec <code>{_text(pending.spec_digest)}</code> and '
        f"disclosure <code>{_text(pending.disclosure_digest)}</code>.</p>"
    )


def _text(value: object) -> str:
    return escape(plain(str(value)))
