#!/usr/bin/env python3
"""Write model/tests/fixtures/chat.json: chat templates of ours, and what transformers makes of conversations with them.

The templates are written for the tests; each uses what a common kind of template uses: turns marked on both sides, a system
message that is part of the first turn, refused messages, methods of strings, what a loop knows, namespaces, tojson, slices,
macros. Recorded with transformers 5.23 (`render_jinja_template`, which `apply_chat_template` calls) and jinja2 3.1.

usage: fixture_chat.py
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

OUT = Path(__file__).resolve().parent.parent / "model" / "tests" / "fixtures" / "chat.json"
BOS, EOS = "<s>", "</s>"

TEMPLATES = {
    "turns": """{% for message in messages %}
{% if loop.first and messages[0]['role'] != 'system' %}
{{ '<|start|>system\nYou help.<|end|>\n' }}
{% endif %}
{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>' + '\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|start|>assistant\n' }}
{% endif %}
""",
    "system in the first turn": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}\
{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}\
{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles must alternate') }}{% endif %}\
{% if loop.index0 == 0 and system != false %}{% set content = '<<S>>\n' + system + '\n<</S>>\n\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[I] ' + content.strip() + ' [/I]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "no system message": """{{ bos_token }}{% if messages[0].role == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
  {%- set role = 'model' if message.role == 'assistant' else message.role -%}
  {{ '<turn>' ~ role ~ '\n' ~ message.content | trim ~ '</turn>\n' }}
{%- endfor -%}
{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}""",
    "namespace and macros": """{%- macro turn(role, content) -%}
[{{ role|upper }}|{{ content|length }}] {{ content }}
{% endmacro -%}
{%- set ns = namespace(system='none', n=0) -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] -%}
{%- else -%}{%- set ns.n = ns.n + 1 -%}{%- endif -%}
{%- endfor -%}
{{ ns.system }}/{{ ns.n }}
{% for message in messages if message.role != 'system' %}
{{ turn(message.role, message.content) }}{{ '' if loop.last else '--' }}
{% endfor %}
{{ 'A:' if add_generation_prompt is defined and add_generation_prompt }}""",
    "methods of strings": """{% for m in messages %}{{ m.content.split(' ')[0].upper() }}|{{ m.content.replace('o', '0') }}|\
{{ m.content.lstrip() }}|{{ m.content.rstrip('.! ') }}|{{ m.content.startswith('Be') }}|{{ m.content.title() }}|\
{{ m.role.capitalize() }}|{{ m.get('name', 'nobody') }}|{{ m.content[:3] }}|{{ m.content[-2:] }}|\
{{ m.content.split('\n') | join('+') }}
{% endfor %}""",
    "tojson": """{% for message in messages %}{{ {'n': [1, 2.5, none, true], 'text': message.content} | tojson(indent=2) }}
{{ {'a': [1, {'b': []}], 'c': message.content} | tojson }}
{{ message.content | tojson(ensure_ascii=false) }}
{% endfor %}""",
    "break and continue": """{% for message in messages %}{% if message.role == 'system' %}{% continue %}{% endif %}\
{{ loop.index }}{{ message.content }}{% if loop.index0 == 2 %}{% break %}{% endif %}{% endfor %}""",
    "tests of what is there": """{% if tools is defined and tools %}tools{% endif %}{% if not tools %}no tools{% endif %}\
{% if date_string is not defined %}{% set date_string = '1 Jan' %}{% endif %}{{ date_string }}\
{% for m in messages %}{% if m.content is string %}{{ m.content }}{% elif m.content is iterable %}list{% endif %}\
{% if m.tool_calls is defined or m.name is not none and m.name is defined %}call{% endif %}\
{% if 'role' in m and m['role'] in ['user', 'assistant'] %}!{% endif %}{% endfor %}{{ messages | length - 1 }}\
{{ messages[-1].role }}{{ (messages | map(attribute='role') | list)[0] }}{{ messages[::-1][0].role }}""",
}

CONVERSATIONS = {
    "question": [("user", "Is it \"good\" & <fine>?")],
    "system": [("system", "Be kind."), ("user", "  Hello, Zoë!  ")],
    "turns": [("user", "Bonjour\nle monde"), ("assistant", " 世界 "), ("user", "and now {{ x }} {% y %}")],
    "system and turns": [("system", "Two\nlines."), ("user", "a"), ("assistant", "b"), ("user", "c'd")],
    "does not alternate": [("user", "a"), ("user", "b")],
}


def render(template, messages):
    """What transformers renders, or the words of what the template raises."""
    try:
        rendered, _ = render_jinja_template(
            conversations=[messages],
            chat_template=template,
            add_generation_prompt=True,
            bos_token=BOS,
            eos_token=EOS,
        )
        return {"rendered": rendered[0]}
    except Exception as e:
        return {"raised": str(e)}


def main():
    cases = []
    for name, template in TEMPLATES.items():
        for conversation, turns in CONVERSATIONS.items():
            messages = [{"role": role, "content": content} for role, content in turns]
            cases.append({"template": name, "conversation": conversation, **render(template, messages)})
    record = {"bos": BOS, "eos": EOS, "templates": TEMPLATES, "conversations": CONVERSATIONS, "cases": cases}
    OUT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
