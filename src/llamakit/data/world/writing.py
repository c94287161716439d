"""Short texts to write or change: formal, shorter, corrected, repeated; messages, stories and verses.

Every edit is of a sentence whose both forms are known, so the expected answer is exact.
"""

from __future__ import annotations

# ruff: noqa: E501 - a phrase book reads best with one question a line, however long.
from llamakit.data.world import lexicon
from llamakit.data.world.draw import Draw, sentence
from llamakit.data.world.facts import clock, day, deadline

Exchange = tuple[str, str]

_FORMAL_ASKS = (
    "Make this formal: {t}", "Rewrite this formally: {t}", "Make this more polite: {t}",
    "Write this in a formal way: {t}", "Rewrite politely: {t}", "Please make this sound professional: {t}",
    "Formal version please: {t}", "Turn this into a formal message: {t}", "Can you make this polite? {t}",
    "More formal: {t}", "Rewrite this for my boss: {t}", "Say this politely: {t}",
)  # fmt: skip
_FORMAL = (
    (("hey can u {vp} {by}", "hi, {vp} {by} pls", "yo, can you {vp} {by}?", "{vp} {by}!!", "u need to {vp} {by}", "plz {vp} {by} thx"), "Could you please {vp} {by}?"),
    (("cant come {on} sorry", "sorry not coming {on}", "i wont make it {on}", "no way i can come {on}"), "I am sorry, but I cannot come {on}."),
    (("im gonna be {n} min late", "running late, {n} min", "late again lol, {n} minutes", "gonna be late {n} min sorry"), "I apologise, I will be {n} minutes late."),
    (("lets do the {event} {on}", "wanna do the {event} {on}?", "{event} {on} ok?", "how bout the {event} {on}"), "I would like to suggest that we have the {event} {on}."),
    (("thx for the help with the {event}", "thanks 4 helping with the {event}!", "ty for ur help with the {event}", "cheers for the help w the {event}"), "Thank you very much for your help with the {event}."),
    (("when is the {event}??", "when r we doing the {event}", "whens the {event}", "so when's the {event} then"), "Could you please tell me when the {event} is?"),
    (("i {vp2} already", "done, i {vp2}", "yep {vp2} already", "just so u know i {vp2} already"), "I have already {vp2}."),
    (("the {broken} is busted again", "{broken} broken, fix it", "ugh the {broken} doesnt work", "the {broken} is dead lol"), "I would like to report that the {broken} is not working."),
)  # fmt: skip
_DONE = (
    ("sent", "send"),
    ("paid", "pay"),
    ("signed", "sign"),
    ("printed", "print"),
    ("confirmed", "confirm"),
    ("cancelled", "cancel"),
    ("updated", "update"),
    ("booked", "book"),
)
_CHORES = dict(lexicon.CHORES)

_SHORT_ASKS = (
    "Shorten this: {t}", "Make this shorter: {t}", "Say this in fewer words: {t}", "Cut this down: {t}",
    "Can you shorten this? {t}", "Shorter please: {t}", "Make it brief: {t}", "Condense this: {t}",
    "Please shorten: {t}", "Give me a shorter version: {t}",
)  # fmt: skip
_LONG = (
    "I just wanted to let you know that {t}", "I am writing to you today because I wanted to tell you that {t}",
    "As you may already have heard from other people, {t}", "Please be aware of the fact that {t}",
    "I hope you are doing well. I would like to inform you that {t}",
    "After thinking about it for quite a long time, I have to say that {t}",
    "In case nobody has told you about it yet, {t}", "It has come to my attention that {t}",
    "For your information, and so that you can plan, {t}",
    "This is just a quick and friendly message to say that {t}",
)  # fmt: skip
_TAILS = (
    ". Thank you very much for your understanding.", ", and I hope that this is fine for all of you.",
    ". Please let me know if you have any questions about this.", ".", ".",
    ". I am sorry for any trouble that this may cause.",
)  # fmt: skip
_PLAIN = (
    "the {event} is {on} at {time}", "the {event} is at {place}", "the {event} is cancelled",
    "the {broken} is broken", "{a} will {vp} {by}", "{a} cannot come {on}", "the {event} was moved to {time}",
    "the tickets cost {n} euros", "{a} is running {n} minutes late", "we need to {vp} {by}",
)  # fmt: skip

_FIX_ASKS = (
    "Fix the spelling: {t}", "Correct this: {t}", "Fix the mistakes: {t}", "Correct the spelling: {t}",
    "Fix this text: {t}", "Please correct my English: {t}", "Spell check: {t}", "Fix grammar and spelling: {t}",
    "Correct the typos: {t}", "Can you fix this? {t}",
)  # fmt: skip
_REPEAT_ASKS = (
    "Repeat after me: {t}", "Say: {t}", "Repeat: {t}", "Please repeat this: {t}", "Copy this: {t}", "Echo: {t}",
    "Say exactly this: {t}", "Type this: {t}",
)  # fmt: skip

_DRAFTS = (
    (("Write a message to {a} that I am running late.", "Tell {a} I'm late.", "Draft a text to {a}: I'm late", "Write to {a} that I will be late."), "Hi {a}, I am running late. Sorry! See you soon."),
    (("Write a birthday message for {a}.", "Write a birthday card for {a}", "Wish {a} a happy birthday.", "Write a birthday greeting to {a}."), "Happy birthday, {a}! I wish you a wonderful day."),
    (("Write a thank you note to {a}.", "Thank {a} for me.", "Write {a} a thank-you message.", "Draft a thank you message for {a}"), "Dear {a}, thank you very much for your help. It means a lot to me."),
    (("Write an invitation to the {event} for {a}.", "Invite {a} to the {event} {on}.", "Write to {a}: come to the {event} {on}", "Draft an invitation for {a} to the {event} {on}."), "Hi {a}, you are invited to the {event}. I hope you can come!"),
    (("Ask {a} to {vp}.", "Write a message asking {a} to {vp}.", "Draft a message to {a}: please {vp}", "Write to {a} and ask for this: {vp}."), "Hi {a}, could you please {vp}? Thank you!"),
    (("Tell {a} that the {event} is cancelled.", "Write to {a} that the {event} is cancelled.", "Draft a message to {a}: no {event}", "Let {a} know the {event} is off."), "Hi {a}, I am sorry, but the {event} is cancelled."),
    (("Write an apology to {a}.", "Say sorry to {a} for me.", "Draft an apology for {a}.", "Write {a} that I am sorry."), "Dear {a}, I am sorry. It was my mistake and it will not happen again."),
)  # fmt: skip
_YES_ASKS = (
    "Write a reply that says yes: {t}", "Reply yes to this: {t}", "Answer this with yes: {t}", "Accept this: {t}",
    "Say yes to: {t}", "Help me accept: {t}",
)  # fmt: skip
_NO_ASKS = (
    "Write a reply that says no: {t}", "Decline this: {t}", "Reply no to this: {t}", "Say no politely: {t}",
    "Turn this down: {t}", "Help me decline: {t}",
)  # fmt: skip

_STORY_ASKS = (
    "Tell me a story about a {x}.", "Write a story about a {x}.", "Tell me a short story about a {x}",
    "I want a story with a {x}.", "Can you tell a story about a {x}?", "Story about a {x} please",
    "Make up a story about a {x}.", "Write a short story about a {x}.",
)  # fmt: skip
_POEM_ASKS = (
    "Write a poem about a {x}.", "Write me a poem about a {x}", "Can you write a poem about a {x}?",
    "A poem about a {x} please.", "Make a rhyme about a {x}.", "Poem about a {x}", "Write a short poem about a {x}.",
    "I want a poem about a {x}.",
)  # fmt: skip


def formal(draw: Draw) -> Exchange:
    """Careless words made polite."""
    rough, fine = draw.choose(_FORMAL)
    past, verb = draw.choose(_DONE)
    slots = {
        "vp": lexicon.task(draw), "by": deadline(draw), "on": day(draw)[1], "n": str(draw.number(1, 12) * 5), "event": lexicon.event(draw),
        "broken": draw.pick(lexicon.BROKEN), "vp2": f"{past} {draw.choose(_CHORES[verb])}",
    }  # fmt: skip
    text = draw.fill(draw.choose(rough), **slots)
    return draw.typed(draw.pick(_FORMAL_ASKS)).format(t=text), draw.fill(fine, **slots)


def _statement(draw: Draw) -> str:
    return draw.fill(
        draw.pick(_PLAIN), event=lexicon.event(draw), on=day(draw)[1], time=clock(draw), place=lexicon.venue(draw),
        broken=draw.pick(lexicon.BROKEN), a=lexicon.person(draw), vp=lexicon.task(draw), by=deadline(draw), n=str(draw.number(1, 12) * 5),
    )  # fmt: skip


def shorten(draw: Draw) -> Exchange:
    """A sentence without its padding."""
    core = _statement(draw)
    return draw.typed(draw.pick(_SHORT_ASKS)).format(
        t=draw.pick(_LONG).format(t=core) + draw.choose(_TAILS)
    ), f"{sentence(core)}."


def correct(draw: Draw) -> Exchange:
    """A sentence without its slips."""
    right = f"{sentence(_statement(draw))}."
    wrong = right.lower().rstrip(".") if draw.chance(0.6) else right
    for _ in range(draw.number(0 if wrong != right else 1, 2)):
        wrong = draw.slip(wrong)
    return draw.typed(draw.pick(_FIX_ASKS)).format(t=wrong), right


def repeat(draw: Draw) -> Exchange:
    """Words to say again, sense or not."""
    words = draw.sample((*lexicon.ANIMALS, *lexicon.FOODS, *lexicon.THINGS, *lexicon.DISHES), draw.number(1, 5))
    text = draw.choose(
        (" ".join(words), sentence(_statement(draw)) + ".", lexicon.person(draw), str(draw.number(10, 99999)))
    )
    return draw.typed(draw.pick(_REPEAT_ASKS)).format(t=text), text


def draft(draw: Draw) -> Exchange:
    """A short message to somebody, or the answer to one."""
    slots = {"a": lexicon.person(draw), "event": lexicon.event(draw), "on": day(draw)[1], "vp": lexicon.task(draw)}
    if draw.chance(0.3):
        asked = draw.fill(
            draw.choose(
                (
                    "Can you come to the {event} {on}?",
                    "Are you coming to the {event} {on}?",
                    "Would you like to join the {event} {on}?",
                    "Do you have time for the {event} {on}?",
                )
            ),
            **slots,
        )
        if draw.chance(0.5):
            return draw.typed(draw.pick(_YES_ASKS)).format(t=asked), draw.fill(
                "Yes, I would love to come to the {event} {on}. Thank you!", **slots
            )
        return draw.typed(draw.pick(_NO_ASKS)).format(t=asked), draw.fill(
            "Thank you, but I cannot come to the {event} {on}.", **slots
        )
    asks, text = draw.choose(_DRAFTS)
    return draw.typed(draw.choose(asks)).format(**slots), text.format(**slots)


_ADJECTIVES = ("little", "brave", "shy", "clever", "hungry", "sleepy", "curious", "kind", "lonely", "funny")
_LANDS = (
    "a green forest", "a quiet village", "a small house by the sea", "the high mountains", "an old garden",
    "a big noisy city",
)  # fmt: skip
_WISHES = (
    ("wanted to see the sea", "walked for three days and three nights", "the water was blue and wide"),
    ("wanted to find a friend", "knocked on every door", "somebody opened and smiled"),
    ("wanted to learn to sing", "practised every morning", "all the birds came to listen"),
    ("lost a shiny red ball", "looked under every leaf", "the ball was behind the old tree"),
    ("wanted to touch the moon", "climbed the highest hill", "the moon looked back and winked"),
    ("wanted to bake a cake", "collected apples and honey", "the whole house smelled sweet"),
)  # fmt: skip
_ENDS = (
    "Then the {x} went home and slept well.", "From that day on, the {x} was never alone.",
    "The {x} was very happy and told everyone about it.", "And that is the end of the story.",
)  # fmt: skip


def story(draw: Draw) -> Exchange:
    """Five sentences about an animal."""
    x = draw.pick(lexicon.ANIMALS)
    article = draw.typed(draw.pick(_STORY_ASKS)).format(x=x).replace(f" a {x}", f" {_article(x)} {x}")
    wish, deed, end = draw.choose(_WISHES)
    kind = draw.choose(_ADJECTIVES)
    text = f"Once there was {_article(kind)} {kind} {x} who lived in {draw.choose(_LANDS)}. One day the {x} {wish}. So the {x} {deed}. At last {end}. "
    return article, text + draw.choose(_ENDS).format(x=x)


_VERSES = (
    "A {x} went walking in the sun,\nand found that walking can be fun.\nIt sang a song, it took a rest,\nand said: of all days, this is best.",
    "The {x} looked up into the night,\nand saw the moon so round and bright.\nIt closed its eyes and dreamed away,\nand woke up on a golden day.",
    "Oh little {x}, where do you go?\nThrough summer rain and winter snow.\nWherever you may choose to roam,\nthe road will always lead you home.",
)


def poem(draw: Draw) -> Exchange:
    """Four lines about an animal."""
    x = draw.pick(lexicon.ANIMALS)
    asked = draw.typed(draw.pick(_POEM_ASKS)).format(x=x).replace(f" a {x}", f" {_article(x)} {x}")
    verse = draw.choose(_VERSES).format(x=x)
    return asked, verse.replace(f"A {x}", f"{_article(x).capitalize()} {x}")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
