"""What the tests of readers share."""

from prompts.formats.imported import Foreign
from prompts.formats.prompt_yml import load_prompt
from prompts.formats.writing import prompt_text
from prompts.prompt import compile_prompt


def foreign(text, path="a.txt", name="a", **more):
    return Foreign(text, path, name, **more)


def places(imported):
    """Where each thing that was left out stands, without the file."""
    return [note.place.partition(":")[2].strip() for note in imported.left_out]


def loaded(keys, name="a"):
    """The prompt of `keys`, read from the file that would be written for it."""
    return load_prompt(prompt_text({"model": "m", **keys}), "a.prompt.yml", name)


def rendered(keys, values=(), **more):
    """Role and content of each message of the prompt that `keys` are."""
    messages = compile_prompt(loaded(keys).content).render(dict(values), **more)
    return [(message.role, message.content) for message in messages]
