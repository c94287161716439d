"""Tasks over a pasted thread: summary, action items, questions, and the calendar invitation that follows.

Phrasings are what people type; the expected answers come from the facts of the thread.
"""

from __future__ import annotations

# ruff: noqa: E501 - a phrase book reads best with one question a line, however long.
from llamakit.data.world.draw import Draw
from llamakit.data.world.threads import Thread

SUMMARISE = (
    "Summarize the last {n} messages.", "Summarise the last {n} messages:", "Summarize:", "Summarise this:",
    "Please summarize these messages.", "Can you summarize this thread?", "Give me a summary of this chat.",
    "What are these messages about?", "TL;DR", "Summarize this conversation for me.", "Sum up the last {n} messages please.",
    "What did I miss?", "Give me the key points.", "Short summary please:", "Could you summarise the chat below?",
    "I was away, what happened?", "Summarize the following messages:", "What is this conversation about?",
    "Please give me a short summary of the last {n} messages.", "Read these {n} messages and summarize them.",
    "Make a summary:", "Can you sum this up?", "Tell me the main points of this thread.", "Summary please",
    "Catch me up on the last {n} messages", "Help me catch up:", "Give me the highlights of this group chat.",
    "Write a summary of these messages.", "I have {n} unread messages. Summarize them.", "What's new in this chat?",
    "Please summarise what was said.", "Bullet points please:", "List the important points from these messages.",
    "Summarize the conversation below in bullet points.", "What happened in this chat?", "tldr please",
    "Summarize the last messages.", "Summarize my last {n} messages", "Could you give me a quick summary?", "Summarize this text:",
)  # fmt: skip

ONE_SENTENCE = (
    "Summarize this in one sentence.", "Give me a one-sentence summary.", "One sentence summary please:", "Summarise these messages in one sentence:",
    "Sum this up in a single sentence.", "In one sentence, what happened?", "Summarize in one sentence:", "Tell me in one sentence what this is about.",
    "Write a summary of one sentence.", "A single sentence summary of the last {n} messages please.",
)  # fmt: skip

ACTIONS = (
    "What are the action items?", "List the action items.", "Extract the action items:", "Who has to do what?",
    "What needs to be done?", "Make a to-do list from these messages.", "List all tasks.", "What are the tasks?",
    "Give me the to-dos.", "Which tasks were assigned?", "Extract the tasks from this chat.", "Find the action items in this thread.",
    "What do people have to do?", "Make a list of action items.", "What are the next steps?", "Who does what by when?",
    "Show me the action items please.", "Action items?", "And the action items?", "Now list the action items.",
    "Turn this into a to-do list:", "What is there to do?", "Please extract all action items from the messages.", "todo list please",
    "Can you pull out the action items?", "Write down who needs to do what.", "List the open tasks.", "What tasks came up?",
    "Which action items are in these messages?", "Please list the to-dos with names.", "Get the action items from the last {n} messages.",
    "Action points please",
)  # fmt: skip

INVITE = (
    "Send a calendar invitation for the {event}.", "Put the {event} in the calendar.", "Add the {event} to my calendar.",
    "Create a calendar event for the {event}.", "Please schedule the {event}.", "Send the invitation for the {event}.",
    "Can you add the {event} to the calendar?", "Make a calendar entry for the {event}.", "Send an invite for the {event}.",
    "Save the {event} in my calendar please.", "Now send a calendar invitation for the {event}.", "Invite everyone to the {event}.",
    "Please send everyone a calendar invitation for the {event}.", "Book the {event} in the calendar.",
    "Set up the {event} in my calendar.", "Create an event for the {event}.", "Send the calendar invite.", "Schedule the {event}.",
)  # fmt: skip

_ABSENT = (
    ("When is the {event}?", "The messages do not say when the {event} is."),
    ("Where is the {event}?", "The messages do not say where the {event} is."),
    ("What time is the {event}?", "The messages do not say what time the {event} is."),
    ("What does {name} have to do?", "The messages do not say anything about {name}."),
    ("How old is {name}?", "The messages do not say."),
    ("Who is paying?", "The messages do not say."),
    ("What is the phone number?", "The messages do not say."),
    ("How much does it cost?", "The messages do not say."),
)
_OPENERS = (
    "{q}", "{q}", "{q}", "{q}", "Question: {q}", "Tell me: {q}", "Do you know: {q}", "Hey, {q}",
    "Based on the messages: {q}", "{q} Please check the messages.",
)  # fmt: skip
_LABELS = ("", "", "", "Messages:\n", "Chat:\n", "Thread:\n", "Here are the messages:\n", "Here is the chat:\n")


def paste(draw: Draw, instruction: str, thread: Thread) -> str:
    """An instruction and a thread in one user message."""
    body = thread.text
    if draw.chance(0.08):
        body = f'"""\n{body}\n"""'
    label = draw.choose(_LABELS)
    if draw.chance(0.2):
        return f"{label}{body}\n\n{instruction}"
    return f"{instruction}{draw.choose((chr(10), chr(10) + chr(10), chr(10) + chr(10), ' '))}{label}{body}"


def ask(draw: Draw, pool: tuple[str, ...], **slots: str) -> str:
    """A phrasing from a pool as somebody types it."""
    return draw.typed(draw.pick(pool)).format(**slots)


def question(draw: Draw, thread: Thread, absent: tuple[str, str]) -> tuple[str, str]:
    """A question about the thread and its answer; sometimes about (event, name) that are not in it."""
    if not thread.questions or draw.chance(0.12):
        event, name = absent
        asked, answer = draw.choose(_ABSENT)
        asked, answer = asked.format(event=event, name=name), answer.format(event=event, name=name)
        if any(asked == known for known, _ in thread.questions):
            asked, answer = _ABSENT[4][0].format(name=name), _ABSENT[4][1]
    else:
        asked, answer = draw.choose(thread.questions)
    if draw.chance(0.15):
        asked = asked.rstrip("?")
    asked = asked[:1].lower() + asked[1:] if draw.chance(0.12) else asked
    return draw.pick(_OPENERS).format(q=asked), answer
