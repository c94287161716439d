"""What people tell each other: things that happened, are so, or are wanted.

Written in the first person, reported in the third.
"""

from __future__ import annotations

# ruff: noqa: E501 - a phrase book reads best with one question a line, however long.
from collections.abc import Callable

from llamakit.data.world import lexicon
from llamakit.data.world.draw import Draw, sentence
from llamakit.data.world.facts import Fact, change, clock, day, everyone, plan, promise, request, volunteer

# First person as it is written, third person as it is reported, a question, and what answers it.
_NEWS: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    (("I'm running {n} minutes late.", "Sorry, I'll be {n} minutes late!", "{n} minutes late, sorry", "I'm about {n} minutes late."), "{a} is running {n} minutes late.", "How late is {a}?", "{a} is running {n} minutes late."),
    (("I'm stuck in traffic near {city}.", "Stuck in traffic near {city}, ugh.", "Traffic is terrible near {city}, I'm stuck."), "{a} is stuck in traffic near {city}.", "Where is {a}?", "{a} is stuck in traffic near {city}."),
    (("My train is delayed by {n} minutes.", "Ugh, my train has a delay of {n} minutes.", "My train is {n} minutes late."), "{a}'s train is {n} minutes late.", "How late is the train?", "{a}'s train is {n} minutes late."),
    (("I'm sick, I can't come {on}.", "I can't make it {on}, I have a fever.", "I won't be there {on}, I feel sick."), "{a} is sick and cannot come {on}.", "Why can't {a} come?", "{a} is sick."),
    (("I can't make it {on}, sorry.", "Sorry, I can't come {on}.", "{on} doesn't work for me.", "I'm busy {on}, so I won't come."), "{a} cannot come {on}.", "Who cannot come?", "{a} cannot come {on}."),
    (("I got the job at {company}!", "Guess what, I got the job at {company}!", "Big news: {company} gave me the job!"), "{a} got the job at {company}.", "Where did {a} get a job?", "{a} got the job at {company}."),
    (("I'm moving to {city} {on}.", "We are moving to {city} {on}!", "Big news, I'm moving to {city} {on}."), "{a} is moving to {city} {on}.", "Where is {a} moving?", "{a} is moving to {city}."),
    (("My flight lands in {city} at {time}.", "I land in {city} at {time}.", "My plane gets to {city} at {time}."), "{a}'s flight lands in {city} at {time}.", "When does {a}'s flight land?", "{a}'s flight lands at {time}."),
    (("I lost my {thing}.", "I can't find my {thing} anywhere!", "Oh no, I lost my {thing}"), "{a} lost the {thing}.", "What did {a} lose?", "{a} lost the {thing}."),
    (("I found a {thing} {spot}. Whose is it?", "Somebody forgot a {thing} {spot}.", "There is a {thing} {spot}, is it yours?"), "{a} found a {thing} {spot}.", "What did {a} find?", "{a} found a {thing} {spot}."),
    (("The {thing} is {spot}.", "I left the {thing} {spot}.", "You'll find the {thing} {spot}.", "I put the {thing} {spot}."), "The {thing} is {spot}.", "Where is the {thing}?", "The {thing} is {spot}."),
    (("The {broken} is broken.", "The {broken} is broken again!", "The {broken} stopped working."), "The {broken} is broken.", "What is broken?", "The {broken} is broken."),
    (("The tickets cost {n} euros each.", "Tickets are {n} euros.", "I checked, the tickets cost {n} euros."), "The tickets cost {n} euros.", "How much are the tickets?", "The tickets cost {n} euros."),
    (("The rent goes up to {money} euros.", "The new rent is {money} euros.", "From next month the rent is {money} euros."), "The rent is {money} euros.", "How much is the rent?", "The rent is {money} euros."),
    (("The wifi password is {code}.", "Wifi password: {code}", "If you need the wifi, the password is {code}."), "The wifi password is {code}.", "What is the wifi password?", "The wifi password is {code}."),
    (("The door code is {pin}.", "Door code: {pin}", "You need the code {pin} for the door."), "The door code is {pin}.", "What is the door code?", "The door code is {pin}."),
    (("My new number is {phone}.", "I have a new number: {phone}", "Please save my new number, {phone}."), "{a}'s new number is {phone}.", "What is {a}'s new number?", "{a}'s new number is {phone}."),
    (("I'm allergic to {food}.", "Please remember that I'm allergic to {food}.", "No {food} for me, I'm allergic."), "{a} is allergic to {food}.", "What is {a} allergic to?", "{a} is allergic to {food}."),
    (("I made {dish} for everyone.", "There is {dish} in the kitchen for everyone, I made it.", "I cooked {dish} for all of us!"), "{a} made {dish} for everyone.", "What did {a} make?", "{a} made {dish} for everyone."),
    (("I want {dish} tonight.", "I'd love {dish} tonight.", "Can we have {dish} tonight?"), "{a} wants {dish} tonight.", "What does {a} want to eat?", "{a} wants {dish}."),
    (("I'm on holiday until {day}.", "I'm away until {day}.", "I'm on vacation, back on {day}."), "{a} is on holiday until {day}.", "How long is {a} on holiday?", "{a} is on holiday until {day}."),
    (("It's going to rain {on}.", "They say it will rain {on}.", "Rain {on}, says the forecast."), "It is going to rain {on}.", "What is the weather {on}?", "It is going to rain {on}."),
    (("The shop closes at {time}.", "Hurry up, the shop closes at {time}!", "The shop is open until {time}."), "The shop closes at {time}.", "When does the shop close?", "The shop closes at {time}."),
    (("The bus leaves at {time}.", "Our bus leaves at {time}.", "The bus goes at {time}, don't be late."), "The bus leaves at {time}.", "When does the bus leave?", "The bus leaves at {time}."),
    (("I passed my exam!", "I did it, I passed the exam!", "Exam passed!!"), "{a} passed the exam.", "Who passed the exam?", "{a} passed the exam."),
    (("I just arrived in {city}.", "I'm in {city} now.", "Finally in {city}!"), "{a} arrived in {city}.", "Where is {a}?", "{a} is in {city}."),
    (("I sold my {thing} for {n} euros.", "Sold the old {thing} for {n} euros!", "I got {n} euros for my {thing}."), "{a} sold the {thing} for {n} euros.", "How much did {a} get for the {thing}?", "{a} got {n} euros for the {thing}."),
    (("{n} people signed up so far.", "We have {n} sign-ups.", "So far {n} people have signed up."), "{n} people signed up.", "How many people signed up?", "{n} people signed up."),
    (("The parcel arrives {on}.", "The parcel will be here {on}.", "They deliver the parcel {on}."), "The parcel arrives {on}.", "When does the parcel arrive?", "The parcel arrives {on}."),
    (("My birthday is {on}.", "It's my birthday {on}!", "By the way, my birthday is {on}."), "{a}'s birthday is {on}.", "When is {a}'s birthday?", "{a}'s birthday is {on}."),
)  # fmt: skip


def news(draw: Draw, cast: list[str]) -> Fact:
    """Something happened, or is the case."""
    a = draw.choose(cast)
    texts, summary, question, answer = draw.choose(_NEWS)
    on = day(draw)[1]
    slots = {
        "a": a,
        "n": str(draw.choose((5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 12, 18, 60, 80))),
        "money": str(draw.number(40, 160) * 10),
        "code": draw.choose(("blue", "red", "green", "happy", "sunny", "quick")) + draw.choose(("llama", "fox", "river", "apple", "moon")) + str(draw.number(10, 99)),
        "pin": str(draw.number(1000, 9999)),
        "phone": f"555-{draw.number(1000, 9999)}",
        "city": lexicon.city(draw),
        "thing": draw.pick(lexicon.THINGS),
        "spot": draw.pick(lexicon.SPOTS).replace(" my ", " the "),
        "broken": draw.pick(lexicon.BROKEN),
        "company": draw.pick(lexicon.COMPANIES),
        "food": draw.pick(lexicon.FOODS),
        "dish": draw.pick(lexicon.DISHES),
        "time": clock(draw),
        "day": draw.choose(lexicon.WEEKDAYS),
        "on": on,
    }  # fmt: skip
    text = draw.fill(draw.choose(texts), **slots)
    return Fact(
        lines=((a, sentence(text)),),
        summary=sentence(summary.format(**slots)),
        questions=((question.format(**slots), sentence(answer.format(**slots))),),
        topic=question.format(**slots) if "{a}" in question or "{thing}" in question else question,
    )


_DID = (
    ("saw", ("a fox", "a rainbow", "an old friend", "a funny film", "a big dog", "{b}'s sister", "the new teacher", "two llamas")),
    ("bought", ("a new bike", "some apples", "new shoes", "a red car", "a guitar", "flowers", "two tickets", "a big table")),
    ("went to", ("the beach", "the market", "{city}", "the zoo", "the cinema", "a concert", "the gym", "{venue}")),
    ("met", ("{b}", "the new boss", "the neighbours", "an old friend", "{b} and the kids", "the landlord", "a famous singer", "the team")),
    ("finished", ("the report", "the book", "my homework", "the painting", "the first draft", "the puzzle", "the marathon", "the course")),
    ("forgot", ("the milk", "my umbrella", "the password", "{b}'s birthday", "the tickets", "to call {b}", "the meeting", "to lock the door")),
    ("cooked", ("{dish}", "{dish} for the kids", "a big {dish}", "{dish} with {food}", "too much {dish}", "dinner", "soup for {b}", "lunch")),
    ("broke", ("a glass", "my arm", "the window", "my phone", "a plate", "the lamp", "the blue cup", "my glasses")),
    ("watched", ("the match", "a film about {animal}s", "the news", "the sunset", "a show with {b}", "the race", "the birds", "the concert")),
    ("talked to", ("{b}", "the boss", "the doctor", "the teacher", "the bank", "{b}'s mum", "the client", "the police")),
    ("lost", ("the game", "five euros", "my way", "the bet", "two kilos", "the match", "my bus ticket", "the race")),
    ("won", ("the game", "a prize", "fifty euros", "the quiz", "the match", "a trip to {city}", "the race", "a big cake")),
    ("sent", ("the files to {b}", "the parcel", "a card to {b}", "the forms", "the application", "{b} the photos", "the money", "an e-mail to {b}")),
    ("repaired", ("the bike", "the radio", "{b}'s laptop", "the fence", "the old clock", "the roof", "the toy", "the chair")),
)  # fmt: skip
_WHEN = (
    "yesterday", "today", "this morning", "last night", "last week", "on the way home", "after work", "with {b}", "",
    "", "", "in {city}",
)  # fmt: skip
_NOW = (
    ("need", "needs", ("help with the boxes", "a new phone", "more time", "a lift to {city}", "a break", "a doctor", "your address", "the car {on}")),
    ("have", "has", ("a cold", "a new cat", "two spare tickets", "a job interview {on}", "a question about the {event}", "no time {on}", "a headache", "a surprise for {b}")),
    ("like", "likes", ("the new plan", "{dish}", "the photos", "the idea", "{b}'s cake", "the blue one", "the new office", "{food}")),
    ("want", "wants", ("to leave early", "to buy a boat", "a dog", "to learn {language}", "to visit {city}", "to go home", "to meet {on}", "more coffee")),
    ("know", "knows", ("a good doctor", "the answer", "the way", "a nice place in {city}", "somebody at {company}", "the owner", "a shortcut", "a cheap hotel")),
    ("work", "works", ("at {company} now", "from home {on}", "late {on}", "with {b} now", "in {city} now", "on the {event}", "until {time}", "at {venue} {on}")),
    ("hope", "hopes", ("it will not rain", "that {b} comes too", "to be back {on}", "for good news", "to win", "that all goes well", "to see {b} {on}", "it works")),
    ("live", "lives", ("in {city} now", "near the station", "with {b} now", "in a small flat", "next to {venue}", "in the old town", "on the third floor", "alone now")),
)  # fmt: skip
_MINE = (
    "dog", "cat", "sister", "brother", "car", "son", "daughter", "laptop", "mother", "neighbour", "boss", "bike",
    "phone", "back", "flight", "father",
)  # fmt: skip
_STATES = (
    "is ill", "is fine again", "is very old", "is late", "is much better now", "is in hospital", "is here",
    "is on the way", "is gone", "is back", "is cancelled", "is new", "is very happy", "is stuck", "is ready",
    "is tired",
)  # fmt: skip
_EXCLAIM = (".", ".", ".", "!", "", " :)", "...")


def life(draw: Draw, cast: list[str]) -> Fact:
    """Anything else that people tell each other, turned from the first into the third person."""
    a = draw.choose(cast)
    slots = {
        "b": lexicon.person(draw), "city": lexicon.city(draw), "venue": lexicon.venue(draw), "dish": draw.pick(lexicon.DISHES),
        "food": draw.pick(lexicon.FOODS), "animal": draw.pick(lexicon.ANIMALS), "on": day(draw)[1], "event": lexicon.event(draw),
        "company": draw.pick(lexicon.COMPANIES), "time": clock(draw), "language": draw.choose(("French", "Spanish", "chess", "Italian", "cooking")),
    }  # fmt: skip
    kind = draw.number(0, 9)
    if kind < 5:
        verb, things = draw.pick(_DID)
        rest = f"{draw.pick(things)} {draw.choose(_WHEN)}".strip().format(**slots)
        told = reported = f"{verb} {rest}"
        asked = f"What did {a} do?"
    elif kind < 8:
        verb, third, things = draw.pick(_NOW)
        rest = draw.pick(things).format(**slots)
        told, reported = f"{verb} {rest}", f"{third} {rest}"
        asked = f"What does {a} say?"
    else:
        mine, state = draw.pick(_MINE), draw.pick(_STATES)
        text = f"{draw.choose(('My', 'My', 'my'))} {mine} {state}{draw.choose(_EXCLAIM)}"
        summary = f"{a}'s {mine} {state}."
        return Fact(
            lines=((a, text),),
            summary=summary,
            questions=((f"What about {a}'s {mine}?", summary),),
            topic=f"mine {a} {mine}",
        )
    reported = reported.replace(" my ", " the ").replace(" your ", " the ")
    opener = (
        draw.choose(("I", "I", "I", "I", "I just", "Guess what, I", "Hey, I", "Today I", "i"))
        if kind < 5
        else draw.choose(("I", "I", "I", "Hey, I", "i", "By the way, I"))
    )
    text = f"{opener} {told}{draw.choose(_EXCLAIM)}"
    return Fact(
        lines=((a, text),),
        summary=f"{a} {reported}.",
        questions=((asked, f"{a} {reported}."),),
        topic=f"life {a} {verb}",
    )


MAKERS: tuple[tuple[float, Callable[[Draw, list[str]], Fact]], ...] = (
    (3.0, request),
    (2.0, promise),
    (1.0, volunteer),
    (0.7, everyone),
    (3.0, plan),
    (0.8, change),
    (3.0, news),
    (3.0, life),
)
"""Every way to make a fact, with its weight."""
