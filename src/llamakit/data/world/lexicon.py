"""The entities of the world: people, places, plans, chores, things.

Lists are finite, so each kind also has a way to make new members: a model that has only ever seen
listed names learns the list and not to copy.
"""

from __future__ import annotations

# ruff: noqa: E501 - a phrase book reads best with one question a line, however long.
from llamakit.data.world.draw import Draw, sentence

PEOPLE = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ivy", "Jack", "Kate", "Leo", "Mia", "Noah",
    "Olivia", "Paul", "Quinn", "Rosa", "Sam", "Tina", "Uma", "Victor", "Wendy", "Xavier", "Yara", "Zoe", "Adam",
    "Bella", "Carlos", "Diana", "Ethan", "Fiona", "George", "Hannah", "Isaac", "Julia", "Kevin", "Laura", "Marco",
    "Nina", "Oscar", "Paula", "Rafael", "Sofia", "Tom", "Ursula", "Vera", "Will", "Yusuf", "Zara", "Aisha", "Bruno",
    "Chloe", "Daniel", "Elena", "Frank", "Gloria", "Hugo", "Irene", "James", "Karim", "Lena", "Martin", "Nora", "Omar",
    "Petra", "Ravi", "Sara", "Theo", "Valerie", "Walter", "Yuki", "Alex", "Beth", "Chris", "Dora", "Eric", "Flora",
    "Gabriel", "Helen", "Ian", "Jane", "Karl", "Lily", "Max", "Nadia", "Otto", "Priya", "Robert", "Sandra", "Tim",
    "Vincent", "Wanda", "Aaron", "Brian", "Cathy", "Derek", "Ella", "Fred", "Gina", "Hassan", "Ines", "John", "Kim",
    "Lucas", "Maria", "Nick", "Olga", "Peter", "Rita", "Simon", "Tara", "Ali", "Bianca", "Cora", "Dan", "Eva", "Finn",
    "Greta", "Harry", "Ida", "Jonas", "Kira", "Liam", "Monica", "Nathan", "Owen", "Pia", "Ruth", "Steve", "Tess",
    "Vikram", "Alice", "Bob", "Carol", "Dave", "Eve", "Joe", "Jenny", "Mark", "Lisa", "Mike", "Rachel", "Luke", "Amir",
    "Mei", "Chen", "Ana", "Luis", "Pedro", "Lucia", "Ingrid", "Sven", "Lars", "Freya", "Dmitri", "Katya", "Ivan",
    "Mila", "Anton", "Jasmin", "Leila", "Samir", "Noor", "Arjun", "Deepa", "Kavya", "Rohan", "Somchai", "Malee",
    "Niran", "Ploy", "Giulia", "Matteo", "Luca", "Chiara", "Pierre", "Amelie", "Claire", "Louis", "Camille", "Jean",
    "Beatriz", "Tiago", "Joana", "Andre", "Fatima", "Ahmed", "Zainab", "Kofi", "Ama", "Kwame", "Abena", "Hiro",
    "Sakura", "Kenji", "Emi", "Ryan", "Megan", "Scott", "Holly", "Jake", "Amy", "Tyler", "Erin", "Sean", "Molly",
    "Connor", "Abby", "Logan", "Mason", "Ava", "Isla", "Ruby", "Poppy", "Oliver", "Charlie", "Archie", "Alfie",
    "Freddie", "Elsie", "Maya", "Naomi", "Esther", "Judith", "Miriam", "Caleb", "Silas", "Ezra", "Jude", "Rory",
    "Callum", "Hamish", "Fergus", "Iris", "Hazel", "Violet", "Opal", "Pearl", "June",
)  # fmt: skip
"""First names; they write messages, are asked to do things and come to plans."""

CONTACTS = (
    "Mum", "Dad", "Grandma", "Grandpa", "Mrs. Lopez", "Mr. Weber", "Dr. Patel", "Aunt May", "Uncle Joe", "my sister",
    "my brother", "the landlord", "my boss", "Mr. Rossi", "Mrs. Brown", "Dr. Kim", "Coach Reed", "my neighbour",
)  # fmt: skip

CITIES = (
    "Paris", "London", "Berlin", "Rome", "Madrid", "Lisbon", "Vienna", "Prague", "Dublin", "Oslo", "Helsinki", "Athens",
    "Tokyo", "Delhi", "Mumbai", "Bangkok", "Sydney", "Toronto", "Boston", "Chicago", "Denver", "Seattle", "Lima", "Cairo",
    "Nairobi", "Hamburg", "Munich", "Milan", "Naples", "Porto", "Seville", "Lyon", "Geneva", "Zurich", "Brussels",
    "Amsterdam", "Copenhagen", "Stockholm", "Warsaw", "Budapest", "Istanbul", "Dubai", "Singapore", "Seoul", "Bristol",
    "Leeds", "Glasgow", "Cardiff", "Austin", "Miami", "Portland", "Montreal", "Oxford", "Cambridge", "New York", "Osaka",
)  # fmt: skip

VENUES = (
    "Luigi's", "the Blue Door", "Cafe Luna", "the Green Fork", "Mario's", "the Old Mill", "Sunny Side", "the Red Lion",
    "Bella Napoli", "the Corner Cafe", "Golden Wok", "the Tea House", "Casa Verde", "the Harbour Grill", "Pizza Roma",
    "the Rose Garden", "Noodle Bar", "the White Horse", "La Plaza", "the Lemon Tree", "Spice Route", "the Boat House",
    "the library", "the office", "the park", "the station", "the town hall", "the gym", "the school", "the museum",
    "the beach", "the sports centre", "the main square", "the community centre", "the old bridge", "the lake",
    "room 12", "room 204", "room 31", "the big meeting room", "the canteen", "the conference room", "studio 5",
    "my place", "the church", "the cinema", "the clinic", "the bakery", "the bus stop", "the north gate", "the stadium",
)  # fmt: skip
"""Places a plan can be at: `at {venue}` reads well with each."""

EVENTS = (
    "dinner", "lunch", "breakfast", "brunch", "picnic", "barbecue", "birthday party", "movie night", "game night",
    "team meeting", "project review", "budget meeting", "parents' evening", "dentist appointment", "doctor's appointment",
    "yoga class", "guitar lesson", "football match", "concert", "rehearsal", "workshop", "job interview", "book club",
    "choir practice", "house viewing", "hike", "training session", "client call", "planning meeting", "garden party",
    "wedding rehearsal", "farewell party", "school play", "piano lesson", "tennis match", "quiz night", "board meeting",
    "design review", "coffee break", "study group", "cooking class", "dance class", "swimming lesson", "photo shoot",
    "family dinner", "volunteer day", "charity run", "haircut", "car inspection", "vet appointment", "staff meeting",
    "sales meeting", "product demo", "code review", "stand-up meeting", "chess club", "art class", "pub night",
    "bike ride", "karaoke night", "wine tasting", "open day", "flat inspection", "reunion", "baby shower", "kick-off meeting",
)  # fmt: skip

CHORES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("book", ("the table", "the tickets", "the hotel", "the meeting room", "the flights", "a taxi", "the photographer")),
    ("buy", ("milk", "bread", "the cake", "flowers", "candles", "a present", "stamps", "new batteries", "cat food", "the drinks")),
    ("send", ("the slides", "the invoice", "the report", "the photos", "the address", "the contract", "the agenda", "the guest list")),
    ("call", ("the plumber", "the bank", "the dentist", "the landlord", "the school", "the vet", "the insurance", "the garage")),
    ("bring", ("the salad", "the speaker", "a dessert", "the camera", "warm clothes", "the projector", "the games", "some snacks")),
    ("pick up", ("the kids", "the parcel", "the dry cleaning", "the keys", "the pizza", "the car", "the medicine", "the cake")),
    ("pay", ("the rent", "the electricity bill", "the deposit", "the phone bill", "the electrician", "the fine")),
    ("check", ("the budget", "the numbers", "the train times", "the weather", "the heating", "the guest list", "the contract")),
    ("update", ("the spreadsheet", "the website", "the calendar", "the address list", "the price list", "the schedule")),
    ("print", ("the tickets", "the posters", "the forms", "the map", "the menu", "the handouts")),
    ("clean", ("the kitchen", "the car", "the bathroom", "the garage", "the windows", "the oven")),
    ("fix", ("the printer", "the bike", "the door", "the sink", "the login bug", "the lamp")),
    ("water", ("the plants", "the garden", "the tomatoes", "the roses")),
    ("walk", ("the dog",)),
    ("feed", ("the cat", "the fish", "the rabbits", "the chickens")),
    ("return", ("the library books", "the shoes", "the drill", "the rental car", "the ladder")),
    ("order", ("the food", "the cake", "more paper", "the chairs", "a new laptop", "the pizza", "the uniforms")),
    ("write", ("the minutes", "the thank-you cards", "the summary", "the article", "the shopping list", "the speech")),
    ("sign", ("the contract", "the form", "the lease", "the permission slip", "the birthday card")),
    ("review", ("the draft", "the budget", "the pull request", "the offer", "the test results", "the application")),
    ("prepare", ("the slides", "the guest room", "the demo", "the salad", "the quiz", "the agenda")),
    ("cancel", ("the subscription", "the hotel", "the gym membership", "the order", "the old contract")),
    ("invite", ("the neighbours", "the new colleagues", "the whole team", "the cousins")),
    ("renew", ("the passport", "the parking permit", "the insurance", "the library card")),
    ("take out", ("the rubbish", "the recycling")),
    ("reserve", ("a parking spot", "the tennis court", "the back room", "two seats")),
    ("confirm", ("the date", "the booking", "the order", "the appointment")),
    ("charge", ("the camera", "the batteries", "the e-bike", "the tablet")),
    ("collect", ("the money", "the signatures", "the forms", "the feedback")),
    ("upload", ("the photos", "the recording", "the homework", "the slides")),
)  # fmt: skip

TASKS = tuple(f"{verb} {thing}" for verb, things in CHORES for thing in things)
"""Everything one can be asked to do, as a verb phrase."""

THINGS = (
    "keys", "umbrella", "wallet", "phone", "jacket", "glasses", "laptop", "charger", "backpack", "scarf", "passport",
    "camera", "headphones", "notebook", "water bottle", "sunglasses", "gloves", "bike helmet", "lunch box", "hat",
    "guitar", "suitcase", "tablet", "watch",
)  # fmt: skip

SPOTS = (
    "on the kitchen table", "under the doormat", "in the top drawer", "in the car", "on my desk", "behind the door",
    "in the blue box", "on the shelf", "next to the printer", "in the hall", "in the garage", "at the front desk",
    "under the bed", "by the window", "in the fridge", "on the balcony", "in my bag", "in the basement",
    "in the green cupboard", "on top of the piano", "in locker 9", "in the meeting room", "with the neighbour", "in the shed",
)  # fmt: skip

FOODS = (
    "nuts", "milk", "eggs", "shellfish", "strawberries", "peanuts", "wheat", "soy", "fish", "cheese", "tomatoes", "apples",
    "mushrooms", "honey", "sesame", "garlic",
)  # fmt: skip

DISHES = (
    "pizza", "pasta", "soup", "curry", "sushi", "tacos", "salad", "pancakes", "risotto", "burgers", "dumplings", "stew",
    "lasagne", "noodles", "paella", "pie",
)  # fmt: skip

BROKEN = (
    "printer", "lift", "coffee machine", "heating", "washing machine", "projector", "wifi", "front door", "dishwasher",
    "air conditioning", "fridge", "doorbell", "shower", "car", "microwave", "oven", "TV", "parking gate",
)  # fmt: skip

COMPANIES = (
    "Nordwind", "Bluebird Labs", "Acme", "Sunrise Bank", "Green Valley", "Orbit", "Lighthouse", "Red Fox Media", "Pixel House",
    "River Tech", "Stonebridge", "Maple and Co", "Hillside Clinic", "Northern Rail", "Silver Oak", "Cloudberry",
)  # fmt: skip

ANIMALS = (
    "fox", "bear", "cat", "dog", "rabbit", "owl", "mouse", "llama", "turtle", "hedgehog", "penguin", "whale", "dragon",
    "robot", "frog", "squirrel", "lion", "bee", "horse", "snail", "duck", "crow", "wolf", "goat", "elephant", "octopus",
)  # fmt: skip

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip

SONGS = (
    "Blue River", "Morning Light", "Dancing Rain", "Paper Moon", "Golden Road", "Night Train", "Summer Wind", "Silver Sea",
    "Little Star", "Long Way Home", "City Lights", "Green Hills", "Broken Clock", "Winter Song", "Sweet Lemon", "Old Friend",
)  # fmt: skip

_SYLLABLES = (
    "ka", "ri", "mo", "lu", "ta", "ne", "vi", "so", "da", "be", "zu", "fi", "ga", "lo", "mi", "pe", "ro", "sa", "te",
    "wy", "jo", "hu", "an", "el", "or", "in", "us", "ar", "en", "ix",
)  # fmt: skip
_QUALITIES = (
    "spring", "summer", "office", "annual", "first", "last", "family", "big", "small", "weekly", "monthly", "online",
    "surprise", "charity", "winter", "final",
)  # fmt: skip


def coined(draw: Draw) -> str:
    """A name that no list has."""
    return sentence("".join(draw.sample(_SYLLABLES, draw.number(2, 3))) + draw.choose(("", "", "n", "s", "k", "l")))


def person(draw: Draw) -> str:
    """A first name."""
    return coined(draw) if draw.chance(0.2) else draw.pick(PEOPLE)


def people(draw: Draw, count: int) -> list[str]:
    """Different first names."""
    found: list[str] = []
    while len(found) < count:
        name = person(draw)
        if name not in found:
            found.append(name)
    return found


def task(draw: Draw) -> str:
    """Something to do, as a verb phrase; now and then an unusual one."""
    if draw.chance(0.25):
        verb, things = draw.choose(CHORES)[0], draw.choose(CHORES)[1]
        return f"{verb} {draw.pick(things)}"
    return draw.pick(TASKS)


def event(draw: Draw) -> str:
    """Something one can plan."""
    name = draw.pick(EVENTS)
    return f"{draw.pick(_QUALITIES)} {name}" if draw.chance(0.2) else name


def venue(draw: Draw) -> str:
    """A place one can be at."""
    if draw.chance(0.2):
        return draw.choose(
            ("Cafe {n}", "{n}'s", "the {n} Hotel", "{n}'s place", "room {r}", "{n} Park", "the {n} Bar", "Hotel {n}")
        ).format(n=coined(draw), r=draw.number(1, 499))
    return draw.pick(VENUES)


def city(draw: Draw) -> str:
    """A town, known or not."""
    return coined(draw) if draw.chance(0.15) else draw.pick(CITIES)
