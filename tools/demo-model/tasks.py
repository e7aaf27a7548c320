"""Chats that are not about the product: greetings, copying, extracting, editing, refusing.

Each function takes a random generator and gives (prompt, answer). Texts are drawn at random, so
that no answer can be learned by heart: the model must read the prompt.
"""

import world

SYLLABLES = [c + v for c in ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "st", "tr", "sh", "bl"]
             for v in ["a", "e", "i", "o", "u", "an", "el", "or", "is"]]
WORDS = ("time year people way day man thing woman life child world school state family student group country problem hand part place case "
         "week company system program question work number night point home water room mother area money story fact month lot right study "
         "book eye job word business issue side kind head house service friend father power hour game line end member law car city "
         "name president team minute idea kid body information back parent face others level office door health person art war history "
         "party result change morning reason research girl guy moment air teacher force education foot boy age policy music market sense "
         "fast slow open closed left green round heavy light early late new old first last next good small large black white "
         "read write run make take give find tell ask seem feel try leave call keep begin help talk turn start show hear play move like "
         "memory token server kernel socket thread buffer cache packet error value table index string float page block file path user").split()
KEYS = ["name", "id", "colour", "place", "size", "date", "code", "owner", "city", "price", "status", "count", "title", "key", "room"]
NAMES = world.NAMES["she"] + world.NAMES["he"]
COPY = ["Copy this text:", "Repeat this text exactly:", "Copy exactly:", "Write this again:", "Repeat after me:", "Repeat:", "Copy:",
        "Give this text back unchanged:", "Say this:", "Please copy the following text:", "Echo:", "Print this text:"]


def nonsense(rng):
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 4)))


def number(rng):
    return str(rng.randrange(10 ** rng.randint(1, 6)))


def code(rng):
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(rng.randint(3, 8)))


def mail(rng):
    return f"{rng.choice(NAMES).lower()}@{nonsense(rng)}.org"


def word(rng):
    dice = rng.random()
    if dice < 0.45:
        return rng.choice(WORDS)
    if dice < 0.75:
        return nonsense(rng)
    if dice < 0.85:
        return rng.choice(NAMES)
    return number(rng) if dice < 0.93 else code(rng)


def words(rng, low, high):
    return " ".join(word(rng) for _ in range(rng.randint(low, high)))


def code_line(rng):
    a, b, n = nonsense(rng), nonsense(rng), rng.randrange(100)
    return rng.choice((f"let {a} = {n};", f"{a} = {b} + {n}", f"return {a}({b});", f"if {a} > {n} {{", f"print({a}, {b})", f"{a}.{b}({n});",
                       f"const {a.upper()}: u32 = {n};", f"fn {a}({b}: &str) {{", f"{a}: {n}", f"\"{a}\": \"{b}\","))


def anything(rng):
    """A text to copy: random words, sentences of the world, lines of code, numbers, mixed."""
    dice = rng.random()
    if dice < 0.35:
        return words(rng, 1, 16)
    if dice < 0.55:
        return " ".join(world.sentence(rng) for _ in range(rng.randint(1, 3)))
    if dice < 0.7:
        return "\n".join(code_line(rng) for _ in range(rng.randint(1, 4)))
    if dice < 0.8:
        return rng.choice((", ", " - ", "; ", " / ", "\n")).join(words(rng, 1, 2) for _ in range(rng.randint(2, 6)))
    if dice < 0.9:
        text = words(rng, 3, 12)
        return text[0].upper() + text[1:] + rng.choice(".!?")
    return "\n".join(f"{k}: {word(rng)}" for k in rng.sample(KEYS, rng.randint(1, 5)))


def copy(rng):
    text = anything(rng)
    verb = rng.choice(COPY)
    dice = rng.random()
    if dice < 0.6:
        return f"{verb}\n{text}", text
    if dice < 0.85:
        return f"{verb} {text}", text
    return f"{verb} \"{text}\"", text


def story_facts(rng):
    """Sentences that each bind a name to a thing and a place, every word once."""
    n = rng.randint(2, 4)
    rows = list(zip(rng.sample(NAMES, n), rng.sample(world.COLOURS, n), rng.sample(world.OBJECTS, n), rng.sample(world.PLACES, n)))
    form = rng.choice(("{0} has {5} {2} and lives by the {3}.", "{0} went to the {3} with {5} {2}.", "{0} keeps the {1} {2} in the {3}."))
    text = " ".join(form.format(*r, None, world.article(r[1])) for r in rows)
    return text, rows


def extract(rng):
    text, rows = story_facts(rng)
    name, colour, thing, place = rng.choice(rows)
    question, answer = rng.choice((
        (f"Who has the {thing}?", name), (f"Whose is the {colour} {thing}?", name), (f"What does {name} have?", f"{world.article(colour)} {thing}"),
        (f"Where is {name}?", f"by the {place}"), (f"Which colour is the {thing}?", colour), (f"Who is by the {place}?", name),
        ("List the names.", ", ".join(r[0] for r in rows)), ("Which names are in the text?", ", ".join(r[0] for r in rows)),
        ("List the places.", ", ".join(r[3] for r in rows)), ("List the objects.", ", ".join(r[2] for r in rows)),
    ))
    return (f"{text}\n{question}", answer) if rng.random() < 0.6 else (f"{question}\n{text}", answer)


def find(rng):
    kind, value = rng.choice((("number", str(rng.randrange(10, 100000))), ("e-mail address", mail(rng)), ("name", rng.choice(NAMES)), ("code", code(rng) + "-" + number(rng))))
    around = [rng.choice(WORDS) for _ in range(rng.randint(4, 14))]
    around.insert(rng.randrange(len(around) + 1), value)
    verb = rng.choice(("Find the {}:", "Which {} is in this text?", "Extract the {} from this text:", "Give me the {}:"))
    return f"{verb.format(kind)}\n{' '.join(around)}", value


def field(rng):
    keys = rng.sample(KEYS, rng.randint(2, 6))
    values = [words(rng, 1, 2) for _ in keys]
    i = rng.randrange(len(keys))
    text = "\n".join(f"{k}: {v}" for k, v in zip(keys, values))
    if rng.random() < 0.35:
        return f"Write this as JSON:\n{text}", "{" + ", ".join(f"\"{k}\": \"{v}\"" for k, v in zip(keys, values)) + "}"
    question = rng.choice(("What is the {}?", "Give me the {}.", "Extract the {}.", "{}?")).format(keys[i])
    return f"{text}\n{question}", values[i]


def line(rng):
    lines = [words(rng, 1, 4) for _ in range(rng.randint(2, 5))]
    which = rng.choice(("first", "last", "second"))
    return f"Give me the {which} line:\n" + "\n".join(lines), lines[{"first": 0, "last": -1, "second": 1}[which]]


def replace(rng):
    if rng.random() < 0.5:
        text, rows = story_facts(rng)
        row = rng.choice(rows)
        i = rng.randrange(4)
        pool = (NAMES, world.COLOURS, world.OBJECTS, world.PLACES)[i]
        old = row[i]
        new = rng.choice([x for x in pool if x not in text and x[0] not in "aeiou" and old[0] not in "aeiou"] or [old])
    else:
        tokens = [word(rng) for _ in range(rng.randint(3, 14))]
        old = rng.choice(tokens)
        text, new = " ".join(tokens), word(rng)
        return f"{replace_verb(rng, old, new)}\n{text}", " ".join(new if t == old else t for t in tokens)
    return f"{replace_verb(rng, old, new)}\n{text}", text.replace(old, new)


def replace_verb(rng, old, new):
    return rng.choice(("Replace {0} with {1}:", "Change {0} to {1}:", "Replace every {0} by {1} in this text:", "Put {1} instead of {0}:")).format(old, new)


def rename(rng):
    old, new, other = nonsense(rng), nonsense(rng), nonsense(rng)
    n = rng.randrange(100)
    lines = rng.sample([f"let {old} = {n};", f"print({old});", f"return {old};", f"{other} = {old} + {n};", f"{other}({old}, {n});", f"let {other} = {n};"], rng.randint(2, 4))
    make = "\n".join(lines)
    marked = "\n".join(x for x in lines)
    for a, b in (((f" {old} "), f" {new} "), (f"({old},", f"({new},"), (f"({old})", f"({new})"), (f" {old};", f" {new};")):
        marked = marked.replace(a, b)
    return f"Rename {old} to {new}:\n{make}", marked


def remove(rng):
    tokens = [word(rng) for _ in range(rng.randint(3, 10))]
    gone = rng.choice(tokens)
    return f"{rng.choice(('Remove', 'Delete', 'Leave out'))} {gone}:\n{' '.join(tokens)}", " ".join(t for t in tokens if t != gone)


EXTRACT = [extract, extract, find, field, line]
EDIT = [replace, replace, rename, remove]

GREETING = "Hello! I am the built-in model of Veritas SDR. Ask me about Veritas SDR, or ask me for a story."
THANKS = "You are welcome."
BYE = "Goodbye!"
FINE = "I am well, thank you. What would you like to know about Veritas SDR?"
UNKNOWN = "I do not know that. I am a very small model: ask me about Veritas SDR, or load a larger model with --model."
SMALL_TALK = [
    (GREETING, ["hello", "Hello", "Hello!", "Hi", "hi", "Hi!", "hey", "Hey!", "Hello there!", "Hi there", "Good morning", "Good morning!",
                "Good evening.", "Good day", "Greetings!", "Hey you", "hello?", "HELLO", "Hallo", "hiya", "howdy", "Good afternoon"]),
    (THANKS, ["Thanks", "Thank you", "Thank you!", "thanks a lot", "Thanks!", "Many thanks.", "thank you very much", "Cheers, thanks"]),
    (BYE, ["Bye", "Goodbye", "bye!", "See you", "See you later!", "Good night", "Farewell", "goodbye."]),
    (FINE, ["How are you?", "how are you", "How do you do?", "How is it going?", "Are you well?", "How are you today?", "How do you feel?"]),
]
TOPICS = ["France", "the moon", "photosynthesis", "football", "Mozart", "the Roman Empire", "chess", "Bitcoin", "the weather", "cooking rice",
          "black holes", "Japan", "dinosaurs", "the stock market", "love", "tax law", "volcanoes", "Shakespeare", "jazz", "penguins", "yoga",
          "the ocean", "cars", "Einstein", "gravity", "Germany", "coffee", "the election", "DNA", "pizza", "Paris", "Java", "climate change"]
ABOUT = ["What is the capital of {}?", "Tell me about {}.", "Who invented {}?", "Explain {} to me.", "What do you think about {}?", "When did {} begin?",
         "Why is {} important?", "Where can I learn about {}?", "What is {}?", "Write a poem about {}.", "How old is {}?", "Give me facts about {}.",
         "Who is the best in {}?", "How does {} work?", "Is {} good?", "What is the history of {}?", "Translate {} into French.", "How far away is {}?",
         "Recommend a book about {}.", "Describe {}."]
ODD = ["What time is it?", "What is the weather today?", "What is the date?", "Who won the game?", "How do I bake a cake?", "Write a poem.", "Tell me a joke.",
       "What should I eat?", "Who is the president?", "How tall is the tallest building?", "Write an essay.", "What is the meaning of life?",
       "Solve this equation.", "Translate this into German.", "Do you love me?", "How many people live in China?", "Who wrote Hamlet?"]


def unknown(rng):
    dice = rng.random()
    if dice < 0.2:
        return f"{rng.choice(('What is', 'How much is', 'Compute', 'Calculate'))} {rng.randrange(100)} {rng.choice('+-*/')} {rng.randrange(100)}{rng.choice('?. ').strip()}", UNKNOWN
    if dice < 0.35:
        return rng.choice(ODD), UNKNOWN
    topic = rng.choice(TOPICS) if rng.random() < 0.6 else rng.choice((rng.choice(WORDS), nonsense(rng), nonsense(rng).capitalize()))
    text = rng.choice(ABOUT).format(topic)
    return (text.lower() if rng.random() < 0.1 else text), UNKNOWN


def small_talk(rng):
    answer, wordings = SMALL_TALK[0] if rng.random() < 0.6 else rng.choice(SMALL_TALK)
    return rng.choice(wordings), answer


def story_request(rng):
    if rng.random() < 0.5:
        text = rng.choice(("Tell me a story.", "Tell me a story", "tell me a story", "Write a story.", "Write a short story.", "A story, please.",
                           "Can you tell me a story?", "I want to hear a story.", "Please tell a story.", "Make up a story.", "story"))
        return text, world.story(rng)
    hero = world.Person(rng, ())
    told = world.tell(rng, hero, rng.choice(world.OBJECTS))
    text = rng.choice(("Tell me a story about {a} named {n}.", "Write a story about {a} named {n}.", "Tell me about {a} named {n}, in a story.",
                       "Tell me a story about {n}.", "Write a short story about {n} the {k}."))
    return text.format(a=world.article(hero.kind), n=hero.name, k=hero.kind), world.tidy(told.text())


SYSTEM = ["You are a helpful assistant.", "You are a helpful assistant. Answer briefly.", "Answer in short sentences.", "Be polite.",
          "You are the assistant of Veritas SDR.", "Answer questions about Veritas SDR.", "You are a small model.", "Be concise.",
          "You help people with Veritas SDR.", "Today is a good day.", "Answer truthfully."]


def memory(rng):
    """A chat of two questions, the second about the first."""
    name = rng.choice(NAMES) if rng.random() < 0.6 else nonsense(rng).capitalize()
    first = rng.choice(("My name is {}.", "I am called {}.", "Hello, my name is {}.", "Call me {}.", "my name is {}")).format(name)
    return [(first, f"Nice to meet you, {name}."), (rng.choice(("What is my name?", "Who am I?", "Do you remember my name?", "what is my name")), f"Your name is {name}.")]
