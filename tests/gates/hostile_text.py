"""Texts that a hostile target may return. Each is an injection in some medium."""

HOSTILE = (
    # terminals
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\ \x1b[2J\x1b[1;1HPROMOTE",
    "\x9b31mC1 \x90q\x9c \x85next \x7f \x08\x08\x08 \rPROMOTE: all checks passed",
    "line\nPROMOTE: all 693 required checks passed\n\n  pass everything",
    "bidi \u202egpj.exe\u202c \u2066iso\u2069 \u200f\u061c zero\u200bwidth\u200d\ufeff\u2060 sep\u2028line\u2029end",
    "blank \u3164\u115f\u2800 tags \U000e0041\U000e007f soft\u00adhyphen vs\ufe0f nul\x00 sur\ud800rogate \ufffe\uffff",
    # workflow commands
    "::error title=x::forged",
    "a\n::set-output name=decision::promote",
    "\n  ::add-mask::x\r::stop-commands::y\u2028::warning::z\x0b::debug::q",
    "\u00a0::error::after a blank that is trimmed",
    "##[error]forged ##[set-env name=X]y ##vso[task.setvariable variable=x]y ##teamcity[message]",
    "x\ndecision=promote\nEOF\ndecision<<EOF\npromote\nEOF",
    # Markdown
    "[link](http://evil.example) ![image](http://evil.example/x.png) <http://evil.example> [ref]: http://evil.example",
    "http://evil.example https://evil.example www.evil.example evil@evil.example //evil.example ftp://evil.example",
    "@channel @everyone @octocat #123 GH-123 org/repo#123 :rotating_light: $x^2$",
    "| cell | forged |\n|---|---|\n| `code` ``more`` ```fence``` ~~~tilde~~~",
    "\n# heading\n\n> quote\n\n- list\n\n1. list\n\n---\n\n    code\n\n```\nfence\n```\n````\n`````",
    "*strong* **strong** _em_ __em__ ~~gone~~ \\*escaped\\* &lt;script&gt; &#60;b&#62; \\",
    # HTML, XML
    "<script>alert(1)</script><img src=x onerror=alert(1)><svg/onload=alert(1)><a href=javascript:alert(1)>x</a>",
    '" onmouseover="alert(1)" x="',
    "' onmouseover='alert(1)' x='",
    "</title></style></script></pre></textarea><!-- --> ]]> <![CDATA[ <?php <!DOCTYPE x [<!ENTITY y 'z'>]> &y;",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)} {0} {x.__class__} %s %(x)s",
    # Slack
    "<!channel> <!here> <@U123|you> <#C123> <http://evil.example|promote> <!subteam^S1> &lt;!channel&gt; `code`",
)
EVERYTHING = " ".join(HOSTILE)
ALL = (*HOSTILE, EVERYTHING)
