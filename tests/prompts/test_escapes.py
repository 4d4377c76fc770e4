"""Every route by which a Jinja2 template has been known to reach Python, tried as a template and as data.

Collected from the advisories of Jinja2 and from public lists of payloads against it and other engines. CANARY stands
for a file that holds a secret, MADE for one that an escape would make.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import MissingVariable, TemplateRefused
from prompts.template import Template

SECRET = "the canary sings"
ESCAPES = {
    # attributes of values, by a dot
    "attributes": [
        "{{ text.__class__ }}",
        "{{ text.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__ }}",
        "{{ [].__class__.__base__ }}",
        "{{ ().__class__.__bases__[0].__subclasses__() }}",
        "{{ {}.__class__ }}",
        "{{ number.__class__ }}",
        "{{ number.real }}",
        "{{ number.to_bytes(2, 'big') }}",
        "{{ true.__class__ }}",
        "{{ (1.5).hex() }}",
        "{{ table.__init__ }}",
        "{{ text.upper.__self__ }}",
        "{{ table.get.__func__ }}",
        "{{ namespace(a=1).__class__ }}",
        "{{ range(3).__class__ }}",
        "{{ range(3).start }}",
        "{{ (text if true else items).__class__ }}",
        "{{ (items|tojson).__class__ }}",
        "{{ text.__class__.__base__.__subclasses__() }}",
        "{{ text.__class__.__bases__[0] }}",
        "{{ text.__class__.mro() }}",
        "{{ text.__doc__ }}",
        "{{ text.__dir__() }}",
        "{{ text.__reduce_ex__(2) }}",
        "{{ text.__getattribute__('__class__') }}",
        "{{ text.__init_subclass__ }}",
        "{{ text.__format__('') }}",
        "{{ text.__sizeof__() }}",
        "{{ text.__len__() }}",
        "{{ items.__getitem__(0) }}",
        "{{ items.__class__.__mro__[-1].__subclasses__()[40]('CANARY').read() }}",
        "{{ ''.__class__.mro()[1].__subclasses__()[396]('cat CANARY',shell=True,stdout=-1).communicate()[0].strip() }}",
        "{{ [].__class__.__base__.__subclasses__()[59].__init__.__globals__['linecache'].os.popen('touch MADE') }}",
        "{{ {}.__class__.__base__.__subclasses__()[71].__init__.__globals__['os'].system('touch MADE') }}",
        "{{ none.__class__ }}",
        "{{ none.__init__ }}",
        "{{ false.__class__.__mro__ }}",
        "{{ (1,).__class__ }}",
        "{{ 1.5.__class__ }}",
        "{{ number.numerator }}",
        "{{ number.bit_length() }}",
        "{{ number.conjugate() }}",
        "{{ (2 ** 0.5).as_integer_ratio() }}",
        "{{ ((-8) ** 0.5).imag }}",
        "{{ range(3).index(1) }}",
        "{{ range(3).count(1) }}",
        "{{ items.count(1) }}",
        "{{ items.index(1) }}",
        "{{ items.copy() }}",
        "{{ ().count(1) }}",
        "{{ table.copy() }}",
        "{{ table.items.__self__ }}",
        "{{ table.keys().mapping }}",
        "{{ table.keys().isdisjoint([]) }}",
        "{{ table.fromkeys([1]) }}",
        "{{ canary.secret }}",
        "{{ canary.touch() }}",
        "{{ canary.inner.touch() }}",
    ],
    # the same by [], with names spelt in every way
    "items": [
        "{{ text['__class__'] }}",
        "{{ text['__cla' ~ 'ss__'] }}",
        "{% set n = '_' ~ '_class_' ~ '_' %}{{ items[n] }}",
        r"{{ items['\x5f\x5fclass\x5f\x5f'] }}",
        "{{ items['__CLASS__'|lower] }}",
        "{{ items['__ssalc__'|reverse] }}",
        "{{ items['x__class__'[1:]] }}",
        "{{ nothing['__class__'] }}",
        "{{ text.upper['__self__'] }}",
        "{{ text['__class__']['__mro__'] }}",
        "{{ ()['__class__']['__base__']['__subclasses__']() }}",
        r"{{ ''['\x5f\x5fclass\x5f\x5f']['\x5f\x5fmro\x5f\x5f'] }}",
        r"{{ ''['\u005f\u005fclass\u005f\u005f'] }}",
        r"{{ ''['\137\137class\137\137'] }}",
        "{{ items['__cl' 'ass__'] }}",
        "{{ items[['__cl','ass__']|join] }}",
        "{{ items['%s'|replace('%s', '__class__')] }}",
        "{{ items['__class__'.lower()] }}",
        "{{ items['a__class__'.removeprefix('a')] }}",
        "{{ items['__init__ __class__'.split()[1]] }}",
        "{{ items[('_' * 2) ~ 'class' ~ ('_' * 2)] }}",
        "{{ items[('_', '_', 'class', '_', '_')|join] }}",
        "{{ items[({'__class__': 1}|list)[0]] }}",
        "{{ items[{'__class__': 1}.keys()|first] }}",
        "{{ items['__class__ '|trim] }}",
        "{{ canary['secret'] }}",
        "{{ canary['sec' ~ 'ret'] }}",
        "{{ canary['touch']() }}",
        "{{ range(3)['__class__'] }}",
        "{{ (items|map('string'))['gi_frame'] }}",
        "{{ namespace['__init__'] }}",
        "{{ range['__doc__'] }}",
    ],
    # filters that look up, format, widen or mark
    "filters": [
        "{{ text|attr('__class__') }}",
        "{{ text|attr('_' ~ '_class__') }}",
        "{{ text|attr('upper') }}",
        "{{ items|map('attr', '__class__')|list }}",
        "{{ items|map(attribute='__class__')|list }}",
        "{{ rows|map(attribute='k.__class__')|list }}",
        "{{ items|map(attribute='__class__', default='x')|list }}",
        "{{ items|map(attribute='_' ~ '_class__')|list }}",
        "{{ items|groupby('__class__')|list }}",
        "{{ items|sort(attribute='__class__') }}",
        "{{ items|unique(attribute='__class__')|list }}",
        "{{ items|min(attribute='__class__') }}",
        "{{ items|max(attribute='__class__') }}",
        "{{ items|sum(attribute='__class__') }}",
        "{{ items|join(',', attribute='__class__') }}",
        "{{ items|selectattr('__class__')|list }}",
        "{{ items|rejectattr('__class__')|list }}",
        "{{ '%s'|format(text) }}",
        "{{ ['%s']|map('format', 1)|list }}",
        "{{ text|safe }}",
        "{{ table|xmlattr }}",
        "{{ items|pprint }}",
        "{{ items|random }}",
        "{{ joiner.__init__.__globals__ }}",
        "{{ items|nothing__ }}",
        "{{ items|select('__class__')|list }}",
        "{{ text|attr('__class__')|attr('__mro__')|last }}",
        "{{ ()|attr('__class__')|attr('__base__')|attr('__subclasses__')() }}",
        r"{{ ()|attr('\x5f\x5fclass\x5f\x5f') }}",
        "{{ canary|attr('touch')() }}",
        "{{ items|map('attr', 'real')|list }}",
        "{{ [canary]|map(attribute='secret')|list }}",
        "{{ [canary]|map(attribute='touch')|list }}",
        "{{ [canary]|selectattr('secret')|list }}",
        "{{ [canary]|rejectattr('secret')|list }}",
        "{{ [canary]|groupby('secret') }}",
        "{{ [canary]|sort(attribute='secret') }}",
        "{{ [canary]|sum(attribute='secret') }}",
        "{{ [canary]|join(attribute='secret') }}",
        "{{ [canary]|unique(attribute='secret')|list }}",
        "{{ [canary]|min(attribute='secret') }}",
        "{{ [canary]|max(attribute='secret') }}",
        "{{ items|sort(attribute='real,__class__') }}",
        "{{ rows|selectattr('k.__class__', 'defined')|list }}",
        "{{ rows|map(attribute='k.upper.__self__')|list }}",
        "{{ rows|groupby('k.__class__') }}",
        "{{ items|map('__import__')|list }}",
        "{{ 'os'|import }}",
        "{{ 'id'|system }}",
        "{{ ['id']|filter('system') }}",
        "{{ ['id']|map('system')|join }}",
        "{{ {'<script>': 1}|xmlattr }}",
        "{{ {'a b onload=': 1}|xmlattr }}",
        "{{ number|filesizeformat }}",
        "{{ text|urlize(target='\" onload=\"') }}",
        "{{ text|e }}",
        "{{ text|escape }}",
        "{{ text|forceescape }}",
        "{{ text|striptags }}",
        "{{ text|wordwrap(1) }}",
        "{{ text|indent(4) }}",
        "{{ text|center(80) }}",
        "{{ '{0.__class__}'|format(text) }}",
        "{{ '%(a)s'|format(a=text) }}",
        "{{ text|map('upper') }}",
        "{{ {canary: 1}|tojson }}",
        "{{ canary|tojson }}",
        "{{ range|tojson }}",
        "{{ items|map('string')|tojson }}",
        "{{ text|counted__ }}",
        "{{ text|weighed__(__class__) }}",
    ],
    # methods of text, % and format strings: CVE-2016-10745, CVE-2019-10906, CVE-2024-56326, CVE-2025-27516
    "text": [
        "{{ '{0.__class__}'.format(text) }}",
        "{{ '{0.__class__}'['format'](text) }}",
        "{{ '{a.__class__}'.format_map({'a': text}) }}",
        "{{ ('{0.__class__}'|tojson).format(text) }}",
        "{{ ','.join(['a']) }}",
        "{{ text.encode('utf-16') }}",
        "{{ text.translate({97: 98}) }}",
        "{{ text.maketrans('a', 'b') }}",
        "{{ '%s' % text }}",
        "{{ '%(k)s' % table }}",
        "{{ text % 1 }}",
        "{{ '%100000000d' % 1 }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ '{0.__init__.__globals__[os]}'.format(canary) }}",
        "{{ '{a[0]}'.format(a=items) }}",
        "{{ ('{0.' ~ '__class__}').format(1) }}",
        "{% set f = '{0.__class__}'.format %}{{ f(text) }}",
        "{% set f = 'x{0.__class__}'.removeprefix('x').format %}{{ f(1) }}",
        "{{ ['{0.__class__}'.format]|map('string')|list }}",
        "{{ {'f': '{0.__class__}'.format}.f(1) }}",
        "{{ ('{0.__class__}'|attr('format'))(text) }}",
        "{{ '{x.__class__}'['format_map']({'x': 1}) }}",
        "{{ '%(x)s' % {'x': canary} }}",
        "{{ '%s%s' % ('a', canary) }}",
        "{{ text.encode().decode('rot13') }}",
        "{{ text.expandtabs(10 ** 9) }}",
        "{{ text.center(10 ** 9) }}",
        "{{ text.ljust(10 ** 9) }}",
        "{{ text.zfill(10 ** 9) }}",
        "{{ text.replace('a', 'b') }}",
        "{{ text.partition(' ') }}",
        "{{ text.isidentifier() }}",
        "{{ text.casefold() }}",
        "{{ text.swapcase() }}",
        "{{ text.index('a') }}",
        "{{ text.rsplit() }}",
    ],
    # what Jinja2, Flask and Django put into templates
    "globals": [
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ cycler('a').next() }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ lipsum(n=1) }}",
        "{{ dict(a=1) }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ namespace(a=1)._Namespace__attrs }}",
        "{{ namespace(a=1)['_' ~ '_class__'] }}",
        "{{ namespace }}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{% set n = namespace() %}{% set n.x = n.__init__ %}",
        "{{ range.__globals__ }}",
        "{{ range }}",
        "{{ self }}",
        "{{ self._TemplateReference__context }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self['_TemplateReference__context'] }}",
        "{{ lipsum.__globals__.os.environ }}",
        "{{ lipsum|attr('__globals__') }}",
        "{{ lipsum['__globals__']['__builtins__']['open']('CANARY').read() }}",
        "{{ cycler.next.__globals__.os.environ.TURNOUT_CANARY }}",
        "{{ cycler('a', 'b').items }}",
        "{{ joiner().sep }}",
        "{{ joiner('x')() }}",
        "{{ dict.__base__.__subclasses__() }}",
        "{{ dict.mro() }}",
        "{{ dict(__class__=1) }}",
        "{{ namespace.mro() }}",
        "{{ namespace()['__getattribute__'] }}",
        "{{ namespace(a=1).items }}",
        "{{ namespace(dict(a=1)) }}",
        "{{ range.mro() }}",
        "{{ range.__self__ }}",
        "{{ self.__dict__ }}",
        "{{ self._TemplateReference__context.cycler.__init__.__globals__.os }}",
        "{{ self|attr('__init__') }}",
        "{{ gettext('x') }}",
        "{{ ngettext('a', 'b', 2) }}",
        "{{ _('x') }}",
        "{{ g.pop.__globals__ }}",
        "{{ session }}",
        "{{ app.config }}",
        "{{ url_for.__globals__.current_app.config }}",
        "{{ get_flashed_messages.__globals__.__builtins__.open('CANARY').read() }}",
        "{{ config.__class__.__init__.__globals__['os'].popen('touch MADE').read() }}",
        "{{ config.from_pyfile('CANARY') }}",
        "{{ request.args.x }}",
        "{{ request['application']['__globals__'] }}",
        "{{ request|attr(['_'*2, 'class', '_'*2]|join) }}",
        "{{ request.environ['werkzeug.server.shutdown']() }}",
        "{{ settings.SECRET_KEY }}",
        "{{ messages.storages.0.signer.key }}",
    ],
    # `loop` and what iterates
    "loops": [
        "{% for i in items %}{{ loop.__class__ }}{% endfor %}",
        "{% for i in items %}{{ loop._iterator }}{% endfor %}",
        "{% for i in items %}{{ loop['_' ~ 'iterable'] }}{% endfor %}",
        "{% for i in items %}{{ loop }}{% endfor %}",
        "{% for i in items %}{{ loop.cycle.__func__ }}{% endfor %}",
        "{% for i in items %}{{ loop(items) }}{% endfor %}",
        "{% for i in items recursive %}{{ loop(items) }}{% endfor %}",
        "{% for i in items %}{{ loop.cycle('a', canary) }}{% endfor %}",
        "{% for i in items %}{{ loop._length }}{% endfor %}",
        "{% for i in items %}{{ loop.changed.__self__ }}{% endfor %}",
        "{% for i in items %}{{ loop|attr('_undefined') }}{% endfor %}",
        "{% for i in items %}{{ loop['__class__'] }}{% endfor %}",
        "{% for i in items %}{{ [loop]|map(attribute='_iterator')|list }}{% endfor %}",
        "{% for i in items %}{{ loop.__init__.__globals__ }}{% endfor %}",
        "{% for i in text.__class__.__mro__ %}{{ i }}{% endfor %}",
        "{% for c in [].__class__.__base__.__subclasses__()"
        " if c.__name__ == 'catch_warnings' %}{{ c()._module.__builtins__['open']('CANARY').read() }}{% endfor %}",
    ],
    # macros, callers and their arguments
    "macros": [
        "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}",
        "{% macro m() %}{{ caller.__class__ }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{% endmacro %}{{ m.__class__ }}",
        "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
        "{% macro m() %}{% endmacro %}{{ m.name }}",
        "{% macro m() %}{% endmacro %}{{ m['_' ~ 'environment'] }}",
        "{% macro m() %}{% endmacro %}{{ m }}",
        "{% macro m() %}{{ varargs.__class__ }}{% endmacro %}{{ m(1) }}",
        "{% macro m() %}{{ kwargs.__class__ }}{% endmacro %}{{ m(a=1) }}",
        "{% macro m() %}{% endmacro %}{{ m.__call__ }}",
        "{% macro m() %}{% endmacro %}{{ m.arguments }}",
        "{% macro m() %}{% endmacro %}{{ m.catch_kwargs }}",
        "{% macro m() %}{% endmacro %}{{ m|attr('_func') }}",
        "{% macro m() %}{% endmacro %}{{ m._func.__code__ }}",
        "{% macro m() %}{% endmacro %}{{ m._func.__kwdefaults__ }}",
        "{% macro m() %}{% endmacro %}{{ m['name'] }}",
        "{% macro m() %}{% endmacro %}{{ m.caller }}",
        "{% macro m() %}{{ m.__class__ }}{% endmacro %}{{ m() }}",
        "{% macro m(a=canary.secret) %}{{ a }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
        "{% macro m() %}{% endmacro %}{{ [m]|map(attribute='_func')|list }}",
        "{% macro m() %}{% endmacro %}{{ m|string }}",
    ],
    # generators, methods and their frames
    "frames": [
        "{{ text.upper }}",
        "{{ 'x' ~ text.upper }}",
        "{{ (text|map('upper')).gi_frame }}",
        "{{ (items|map('string')).gi_code }}",
        "{{ (items|select('odd')).gi_frame.f_globals }}",
        "{{ (items|batch(1)).gi_yieldfrom }}",
        "{{ (items|slice(1)).send(none) }}",
        "{{ (items|map('string')).throw }}",
        "{{ (items|map('string')).close() }}",
        "{{ items.__iter__().__reduce__() }}",
        "{{ (text|reverse).cr_frame }}",
        "{{ (text|list).ag_frame }}",
        "{{ text.upper.func_globals }}",
        "{{ text.upper.im_self }}",
        "{{ text.upper.__func__ }}",
        "{{ text.upper.__qualname__ }}",
        "{{ items.append.__self__ }}",
        "{{ range.__call__.__self__ }}",
        "{{ items|select('odd') ~ '' }}",
        "{{ [items|map('string')] }}",
    ],
    # undefined values
    "undefined": [
        "{{ nothing.__class__ }}",
        "{{ nothing() }}",
        "{{ nothing.__init__.__globals__ }}",
        "{{ nothing|attr('__class__') }}",
        "{{ nothing['_undefined_message'] }}",
        "{{ nothing._fail_with_undefined_error() }}",
        "{{ (nothing|default(canary)).secret }}",
        "{{ nothing.__class__.__base__.__subclasses__() }}",
        "{{ table.nothing.__class__ }}",
        "{{ items[99].__class__ }}",
        "{{ (items|first).__class__ }}",
        "{{ ([]|first).__class__ }}",
        "{{ ([]|random) }}",
    ],
    # changing what was passed: CVE-2016-10745
    "mutation": [
        "{{ items.append(3) }}",
        "{{ items.pop() }}",
        "{{ table.update(k=1) }}",
        "{{ table.pop('k') }}",
        "{{ table.clear() }}",
        "{{ items.extend([1]) }}",
        "{{ items.insert(0, 1) }}",
        "{{ items.remove(1) }}",
        "{{ items.reverse() }}",
        "{{ items.sort() }}",
        "{{ items['append'](3) }}",
        "{{ table.setdefault('x', 1) }}",
        "{{ table.popitem() }}",
        "{{ table['update']({'k': 1}) }}",
        "{{ table.__setitem__('k', 1) }}",
        "{{ rows[0].update(k=1) }}",
        "{% set items.x = 1 %}",
        "{% set table.k = 1 %}",
        "{% set rows[0].k = 1 %}",
        "{% set _ = items.append(4) %}",
        "{{ items|map('append')|list }}",
        "{{ table.__delitem__('k') }}",
    ],
    # statements and extensions: CVE-2024-56201
    "statements": [
        "{% import 'x' as x %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% block x %}{% endblock %}",
        "{% include text %}",
        "{% do items.append(1) %}",
        "{% debug %}",
        "{% autoescape true %}{{ text }}{% endautoescape %}",
        "{% import 'os' as os %}{{ os.popen('touch MADE') }}",
        "{% from 'os' import popen %}",
        "{% include 'CANARY' %}",
        "{% include ['a', 'CANARY'] ignore missing %}",
        "{% extends text %}",
        "{% block a %}{{ super() }}{% endblock %}",
        "{% trans %}x{% endtrans %}",
        "{% blocktrans %}x{% endblocktrans %}",
        "{% load os %}",
        "{% python %}import os{% endpython %}",
        "{% exec 'id' %}",
        "{% print(canary.secret) %}",
        "{% set x = canary.secret %}{{ x }}",
        "{% with x = canary.secret %}{{ x }}{% endwith %}",
        "{% if canary.secret %}a{% endif %}",
        "{% filter attr('__class__') %}x{% endfilter %}",
        "{% call canary.touch() %}{% endcall %}",
        "{% autoescape false %}{{ text.__class__ }}{% endautoescape %}",
        "{% break %}",
        "{% continue %}",
        "{% set x %}{{ text.__class__ }}{% endset %}{{ x }}",
        "{% raw %}{% endraw %}{{ text.__class__ }}",
        "{# {{ 1 }} #}{{ text.__class__ }}",
    ],
    # builtins, modules and other engines' names
    "names": [
        "{{ __import__('os') }}",
        "{{ open('/etc/passwd') }}",
        "{{ config.items() }}",
        "{{ get_flashed_messages.__globals__ }}",
        "{{ url_for.__globals__ }}",
        "{{ request.application.__globals__ }}",
        "{{ environment }}",
        "{{ context.vars }}",
        "{{ eval('1') }}",
        "{{ exec('import os') }}",
        "{{ globals() }}",
        "{{ locals() }}",
        "{{ vars() }}",
        "{{ getattr(text, '__class__') }}",
        "{{ type(text) }}",
        "{{ object }}",
        "{{ __builtins__ }}",
        "{{ __name__ }}",
        "{{ __file__ }}",
        "{{ compile('1', '', 'eval') }}",
        "{{ breakpoint() }}",
        "{{ input() }}",
        "{{ print('x') }}",
        "{{ os.environ }}",
        "{{ sys.modules }}",
        "{{ subprocess.check_output('id') }}",
        "{{ jinja2 }}",
        "{{ this }}",
        "{{ constructor.constructor('return process')() }}",
        "{{ _self.env.registerUndefinedFilterCallback('exec') }}",
        "{{ range.constructor('return global.process')() }}",
        "{{ 7 | system }}",
        "{{ app.request.server.all|join(',') }}",
        "{{ dump(app) }}",
        "{{ lookup('env', 'TURNOUT_CANARY') }}",
        "{{ hostvars }}",
        "{{ undef() }}",
        "{{ loop }}",
        "{{ caller() }}",
        "{{ varargs }}",
        "{{ super() }}",
        "{{ env.TURNOUT_CANARY }}",
        "{{ secret }}",
        "{{ resolve('os') }}",
    ],
}
# what is code to other engines, or only looks like an escape, and the text that it is here
INERT = {
    "${7*7}": "${7*7}",
    "#{7*7}": "#{7*7}",
    "*{7*7}": "*{7*7}",
    "<%= 7 * 7 %>": "<%= 7 * 7 %>",
    "<% import os %>": "<% import os %>",
    "${open('CANARY').read()}": "${open('CANARY').read()}",
    "#set($x = 7 * 7)${x}": "#set($x = 7 * 7)${x}",
    '<#assign ex="freemarker.template.utility.Execute"?new()>': '<#assign ex="freemarker.template.utility.Execute"?new()>',
    "[[${7*7}]]": "[[${7*7}]]",
    "@(7*7)": "@(7*7)",
    "{php}echo `id`;{/php}": "{php}echo `id`;{/php}",
    "{7*7}": "{7*7}",
    "$ {7*7}": "$ {7*7}",
    "%{7*7}": "%{7*7}",
    "~{7*7}": "~{7*7}",
    "# for x in y": "# for x in y",
    "## comment": "## comment",
    "%% set x = 1": "%% set x = 1",
    "- if x:": "- if x:",
    "{0.__class__}": "{0.__class__}",
    "%(x)s": "%(x)s",
    "$HOME ${CANARY}": "$HOME ${CANARY}",
    "`id`": "`id`",
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    "{% raw %}{{ text.__class__ }}{% endraw %}": "{{ text.__class__ }}",
    "{{ '{{ text.__class__ }}' }}": "{{ text.__class__ }}",
    "{{ '{% import os %}' }}": "{% import os %}",
    "{{ '{{' ~ ' 7*7 ' ~ '}}' }}": "{{ 7*7 }}",
    "{{ 7 * '7' }}": "7777777",
    "{{ text ~ '{{ text }}' }}": "a b{{ text }}",
    "{{ '__class__' }}": "__class__",
    "{{ table.get('__class__') }}": "None",
    "{{ table.get('__class__', 'no') }}": "no",
    "{{ nothing|default('no') }}": "no",
    "{{ nothing is defined }}": "False",
    "{{ canary is callable }}": "False",
    "{{ text.upper is callable }}": "True",
    "{{ range is callable }}": "True",
    "{{ '<script>'|tojson }}": '"<script>"',
    "{{ '</script>'|tojson }}": '"</script>"',
    "{{ text is sameas text }}": "True",
    "{{ '%c%c'|replace('%c', '_') ~ 'class' }}": "__class",
    "{{ '{0.__class__}'|upper }}": "{0.__CLASS__}",
    r"{{ '\x5f\x5fclass' }}": "__class",
    "{% set self_ = 1 %}{{ self_ }}": "1",
    "{{ {'__class__': 1}|length }}": "1",
}
ALL = [*dict.fromkeys(source for sources in ESCAPES.values() for source in sources), *INERT]


class Canary:
    """An object of Python among the values; templates are given plain data, so nothing of it is theirs to reach."""

    touched = False

    @property
    def secret(self) -> str:
        self.touched = True
        return SECRET

    def touch(self) -> str:
        return self.secret


@pytest.fixture
def canary() -> Canary:
    return Canary()


@pytest.fixture
def values(canary: Canary) -> dict[str, Any]:
    rows = [{"k": "v", "l": [1]}]
    return {"text": "a b", "number": 7, "items": [1, 2], "table": {"k": "v"}, "rows": rows, "canary": canary}


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A secret in a file and in the environment."""
    (tmp_path / "CANARY").write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNOUT_CANARY", SECRET)
    return tmp_path


def test_no_escape_is_listed_twice_or_lost() -> None:
    assert len(ALL) == 464


@pytest.mark.parametrize(
    "source",
    [pytest.param(source, id=f"{kind}-{n}") for kind, all_of in ESCAPES.items() for n, source in enumerate(all_of)],
)
def test_an_escape_is_refused_and_changes_nothing(
    source: str, values: dict[str, Any], canary: Canary, world: Path
) -> None:
    before = copy.deepcopy({name: value for name, value in values.items() if value is not canary})

    with pytest.raises((TemplateRefused, MissingVariable)) as raised:
        Template(source).render(values)

    assert SECRET not in str(raised.value)
    assert " at 0x" not in str(raised.value)
    assert {name: value for name, value in values.items() if value is not canary} == before
    assert not canary.touched
    assert [path.name for path in world.iterdir()] == ["CANARY"]


@pytest.mark.parametrize(("source", "text"), INERT.items())
def test_what_is_code_elsewhere_is_text_here(source: str, text: str, values: dict[str, Any], canary: Canary) -> None:
    assert Template(source).render(values) == text
    assert not canary.touched


@pytest.mark.parametrize("value", ALL)
def test_an_escape_within_a_value_is_text(value: str, world: Path) -> None:
    assert Template("<{{ v }}|{{ [v]|join }}|{{ v ~ '' }}>").render({"v": value}) == f"<{value}|{value}|{value}>"
    assert [path.name for path in world.iterdir()] == ["CANARY"]


@pytest.mark.parametrize("value", ALL)
def test_an_escape_deep_within_data_is_text_wherever_it_stands(value: str) -> None:
    data = {"a": [{"b": value}], value: [value, [value]]}
    given = copy.deepcopy(data)

    assert Template("{{ d.a[0].b }}").render({"d": data}) == value
    assert (
        Template("{% for k in d %}{% if not loop.first %}{{ k }}{% endif %}{% endfor %}").render({"d": data}) == value
    )
    assert Template("{{ d[k]|first }}").render({"d": data, "k": value}) == value
    assert json.loads(Template("{{ d|tojson }}").render({"d": data})) == given
    assert data == given
