"""A small simulated world, told as stories.

A story is simulated first: who takes part, where they are, what is looked for and who carries it.
Only then is it put into sentences, each chosen from several wordings, so that the names, the
places and the objects of a story hold together from its first sentence to its last. All text is
made here; nothing is taken from elsewhere.
"""

import random

EVALUATION_SEED = 20_261_126

NAMES = {
    "she": ["Mira", "Lena", "Anna", "Ruby", "Nora", "Ida", "Tessa", "Olga", "Pia", "Wanda", "Clara", "Elsa"],
    "he": ["Tobin", "Oskar", "Finn", "Hugo", "Milo", "Jonas", "Rufus", "Otto", "Bruno", "Emil", "Karl", "Nils"],
}
KINDS = {
    "she": ["girl", "baker", "fox", "mouse", "gardener", "owl", "cat", "weaver", "goose", "sailor"],
    "he": ["boy", "miller", "bear", "rabbit", "fisherman", "badger", "dog", "smith", "crow", "shepherd"],
}
PLACES = ["mill", "harbour", "lighthouse", "old bridge", "market", "orchard", "forest", "meadow", "river", "bakery",
          "castle", "hill", "lake", "tower", "barn", "library"]
HOMES = ["a small house by the {p}", "a hut near the {p}", "a blue house behind the {p}", "a quiet room next to the {p}"]
OBJECTS = ["lantern", "key", "kite", "basket", "bell", "scarf", "boat", "book", "drum", "cup", "map", "hat", "flute",
           "blanket", "mirror", "coin"]
COLOURS = ["red", "blue", "green", "yellow", "silver", "golden", "white", "brown", "small", "old", "wooden", "shiny"]
TRAITS = ["kind", "brave", "curious", "patient", "clever", "shy", "cheerful", "careful", "gentle", "stubborn"]
FOODS = ["bread", "apples", "soup", "honey", "cheese", "pears", "a cake", "nuts", "berries", "tea"]
WEATHER = ["The sun was shining", "It was raining", "A soft wind was blowing", "Snow lay on the ground", "The fog was thick",
           "The sky was clear"]
MORALS = ["A friend is worth more than a {o}.", "It is good to ask for help.", "Those who share are never alone.",
          "Patience finds what haste has lost.", "A kind word costs nothing.", "Even a small light helps in the dark."]
OPENINGS = [
    "Once upon a time there was a {t} {k} named {h}.",
    "Once upon a time, a {t} {k} named {h} lived by the {p}.",
    "Once upon a time there lived a {t} {k}. {P} name was {h}.",
    "Long ago, by the {p}, there lived a {t} {k} named {h}.",
    "There was once a {t} {k} named {h}.",
    "One day, a {t} {k} named {h} went to the {p}.",
    "In a {s} village by the {p} lived a {t} {k} named {h}.",
    "{h} was a {t} {k} who lived by the {p}.",
]
FORMS = {"she": ("she", "her", "her"), "he": ("he", "him", "his")}


class Person:
    def __init__(self, rng, taken):
        self.sex = rng.choice(("she", "he"))
        self.name = rng.choice([n for n in NAMES[self.sex] if n not in taken])
        self.kind = rng.choice(KINDS[self.sex])
        self.subject, self.object, self.possessive = FORMS[self.sex]


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


class Story:
    """One telling. `say` picks a wording and fills it; the plots below decide what happens."""

    def __init__(self, rng, hero=None, thing=None):
        self.rng = rng
        self.hero = hero or Person(rng, ())
        self.friend = Person(rng, (self.hero.name,))
        self.elder = Person(rng, (self.hero.name, self.friend.name))
        self.p, self.q, self.r = rng.sample(PLACES, 3)
        self.o, self.o2 = rng.sample(OBJECTS, 2)
        if thing:
            self.o, self.o2 = thing, next(x for x in rng.sample(OBJECTS, 2) if x != thing)
        self.c, self.c2 = rng.sample(COLOURS, 2)
        self.food = rng.choice(FOODS)
        self.trait = rng.choice(TRAITS)
        h, f, e = self.hero, self.friend, self.elder
        self.words = {
            "h": h.name, "k": h.kind, "t": self.trait, "he": h.subject, "him": h.object, "his": h.possessive,
            "He": h.subject.capitalize(), "His": h.possessive.capitalize(), "P": h.possessive.capitalize(),
            "f": f.name, "fk": f.kind, "fhe": f.subject, "fhim": f.object, "fhis": f.possessive,
            "fHe": f.subject.capitalize(), "fHis": f.possessive.capitalize(),
            "e": e.name, "ek": e.kind, "ehe": e.subject, "eHe": e.subject.capitalize(), "ehis": e.possessive,
            "p": self.p, "q": self.q, "r": self.r, "o": self.o, "o2": self.o2, "c": self.c, "c2": self.c2,
            "ac": article(self.c), "ac2": article(self.c2), "food": self.food, "s": rng.choice(("small", "quiet", "little")),
            "w": rng.choice(WEATHER), "af": article(f.kind), "ae": article(e.kind),
            "day": rng.choice(("morning", "evening", "day", "night", "afternoon")),
        }
        self.parts = []

    def say(self, *wordings):
        self.parts.append(self.rng.choice(wordings).format_map(self.words))

    def maybe(self, chance, *wordings):
        if self.rng.random() < chance:
            self.say(*wordings)

    def opening(self):
        text = self.rng.choice(OPENINGS)
        if self.trait[0] in "aeiou":
            text = text.replace("a {t}", "an {t}")
        # The village of an opening lies by the first place, and so does everything said of home.
        self.parts.append(text.format_map(self.words))

    def home(self):
        if self.rng.random() < 0.4:
            self.words["home"] = self.rng.choice(HOMES).format_map(self.words)
            self.say("{h} lived in {home}.", "{His} home was {home}.", "{He} had {home}.")

    def own(self):
        self.say("{h} had {ac} {o}.", "{He} owned {ac} {o} and took good care of it.", "{His} dearest thing was {ac} {o}.",
                 "{h} loved {his} {c} {o}.", "Every {day}, {h} carried {ac} {o}.", "{His} mother had given {him} {ac} {o}.")

    def meet_friend(self):
        self.say("At the {q} {he} met {af} named {f}.", "There {he} met {f}, {af} with a warm smile.",
                 "Near the {q} sat {af} named {f}.", "On the way to the {q}, {h} met {af} named {f}.",
                 "Then {af} named {f} came along.")

    def greet(self):
        self.maybe(0.6, "\"Good {day}, {f},\" said {h}.", "\"Hello,\" said {f}. \"Where are you going?\"",
                   "\"You look sad, {h},\" said {f}.", "\"What is the matter?\" asked {f}.", "{f} waved at {h}.")

    def weather(self):
        self.maybe(0.4, "{w}.", "{w} that {day}.", "{w}, and {h} was in a good mood.")

    def ending(self):
        self.say("{h} and {f} stayed friends from that day on.", "From then on, {h} and {f} met at the {p} every {day}.",
                 "{h} went home happy.", "In the end, {h} and {f} sat by the {p} and ate {food}.", "And {h} was never sad again.",
                 "{h} thanked {f}, and they walked home together.", "That night, {h} slept very well.")
        self.maybe(0.4, *MORALS)
        self.maybe(0.3, "The end.")

    def text(self):
        return " ".join(self.parts)


def lost(s):
    s.opening(); s.home(); s.own(); s.weather()
    s.say("One {day}, the {c} {o} was gone.", "But one {day} {he} could not find the {c} {o}.", "One {day} {h} lost the {c} {o} at the {r}.")
    s.say("{He} looked for it at the {q}, but it was not there.", "{h} searched the {q} and found nothing.", "{He} looked everywhere and began to cry.")
    s.meet_friend(); s.greet()
    s.say("\"I have lost my {c} {o},\" said {h}.", "{h} told {f} about the {c} {o}.", "\"Have you seen {ac} {o}?\" asked {h}.")
    s.say("\"I will help you,\" said {f}.", "\"Let us look at the {r},\" said {f}.", "{f} thought for a while. \"Come with me to the {r},\" {fhe} said.")
    s.say("They walked to the {r} together.", "Together they went to the {r}.", "So {h} and {f} went to the {r}.")
    s.say("There, under a stone, lay the {c} {o}.", "And there was the {c} {o}, behind a tree.", "{f} saw it first: the {c} {o} lay in the grass.")
    s.say("\"Thank you, {f}!\" said {h}.", "{h} was so happy that {he} danced.", "{h} took the {c} {o} and hugged {f}.")
    s.ending()


def gift(s):
    s.opening(); s.home()
    s.say("{His} best friend was {af} named {f}.", "{He} had a friend, {af} named {f}.", "Next door lived {af} named {f}.")
    s.say("{f} wished for {ac} {o}.", "{f} had always wanted {ac} {o}.", "One {day} {f} said, \"I wish I had {ac} {o}.\"")
    s.say("{h} wanted to give {fhim} one.", "So {h} made a plan.", "{h} heard it and did not forget it.")
    s.say("{He} went to the {q} and worked there for three days.", "{h} worked at the {q} until the sun went down.", "{He} sold {food} at the {q} and saved every coin.")
    s.weather()
    s.say("Then {he} bought {ac} {o} at the {r}.", "At the {r}, {h} found {ac} {o}.", "With the money, {h} bought {ac} {o} at the {r}.")
    s.say("{He} carried the {c} {o} to {f}.", "In the {day}, {h} gave the {c} {o} to {f}.", "\"This {o} is for you,\" said {h}.")
    s.say("{f} could not believe {fhis} eyes.", "\"What {ac} {o}!\" said {f}. \"Thank you, {h}.\"", "{f} laughed and held the {c} {o} up high.")
    s.ending()


def trade(s):
    s.opening(); s.own()
    s.say("At the {q}, {h} saw {af} named {f} with {ac2} {o2}.", "One {day}, {af} named {f} came by with {ac2} {o2}.")
    s.say("\"I like your {o2},\" said {h}.", "{h} looked at the {c2} {o2} for a long time.", "\"Would you trade your {o2} for my {o}?\" asked {h}.")
    s.say("\"Then let us trade,\" said {f}.", "\"I will give you my {o2} for your {o},\" said {f}.", "{f} nodded.")
    s.say("So {h} gave away the {c} {o} and got the {c2} {o2}.", "{h} took the {c2} {o2}, and {f} took the {c} {o}.")
    s.say("But at home {h} missed the {c} {o}.", "That {day}, {h} thought of the {c} {o} and could not sleep.")
    s.say("The next day {he} went back to the {q}.", "{He} ran back to {f}.")
    s.say("\"I miss my {o},\" said {h}.", "\"May I have my {o} back?\" asked {h}.")
    s.say("\"And I miss my {o2},\" said {f}.", "\"Of course,\" said {f}, \"for I miss my {o2}.\"")
    s.say("They laughed and traded again.", "So the {c} {o} came back to {h}, and the {c2} {o2} to {f}.")
    s.ending()


def storm(s):
    s.opening(); s.home(); s.own()
    s.say("One {day}, a great storm came over the {q}.", "One {day} the wind grew strong and the sky grew dark.")
    s.say("{h} heard a cry from the {q}.", "Someone called for help at the {q}.")
    s.say("It was {af} named {f}, who was cold and wet.", "There stood {af} named {f}, all alone in the rain.")
    s.say("{h} took the {c} {o} and ran outside.", "{He} held up the {c} {o} so that {f} could see {him}.")
    s.say("\"Come with me, {f},\" said {h}. \"My home is near.\"", "\"Do not be afraid,\" said {h}.", "\"Take my hand,\" said {h}.")
    s.say("They hurried past the {r}.", "Step by step they walked past the {r}.", "The way led over the {r}, and the wind was loud.")
    s.say("At home, {h} gave {f} {food} and a warm blanket.", "{h} made a fire and gave {f} {food}.")
    s.say("In the morning the storm was over.", "When the sun came up, the sky was clear again.")
    s.say("\"You saved me, {h},\" said {f}.", "\"I will never forget this,\" said {f}.")
    s.ending()


def contest(s):
    s.opening()
    s.say("Every year there was a race from the {p} to the {q}.", "One {day}, there was a race from the {p} to the {q}.")
    s.say("The prize was {ac} {o}.", "Whoever won would get {ac} {o}.")
    s.say("{h} wanted to win the {c} {o}.", "{h} had trained for weeks.", "\"I will win,\" said {h}.")
    s.say("{af} named {f} wanted it too.".replace("{af}", "But {af}"), "The fastest of all was {af} named {f}.")
    s.weather()
    s.say("{f} ran ahead, and {h} was far behind.", "At first {f} was in front.", "They started side by side.")
    s.say("But at the {r}, {f} fell and hurt {fhis} foot.", "Near the {r}, {f} slipped and could not get up.")
    s.say("{h} stopped and helped {f}.", "{h} could have won, but {he} stopped.", "\"Lean on me,\" said {h}.")
    s.say("They came to the {q} together, the last of all.", "Together they walked slowly to the {q}.")
    s.say("Everyone clapped, and the judge gave the {c} {o} to both of them.", "\"The {o} is yours, {h},\" said the judge, \"for you have a good heart.\"")
    s.ending()


def wise(s):
    s.opening(); s.home()
    s.say("{h} wanted to know what was behind the {r}.", "One {day}, {h} heard a tale about the {r}.", "{h} had heard that {ac} {o} was hidden at the {r}.")
    s.say("{His} friend {f}, {af}, came along.", "{f}, {af} and a good friend, went with {him}.")
    s.say("They walked past the {q} and up a long path.", "First they went to the {q}.", "The way to the {r} was long.")
    s.say("There they met an old {ek} named {e}.", "By a fire sat an old {ek} named {e}.")
    s.say("\"Answer my question,\" said {e}, \"and I will show you the way.\"", "\"What do you seek?\" asked {e}.", "{e} smiled at {h} and {f}.")
    s.say("\"We seek the {c} {o},\" said {h}.", "{h} told {e} everything.", "\"We want to see the {r},\" said {f}.")
    s.say("{e} pointed to the {r}.", "\"Go to the {r} and look under the oldest tree,\" said {e}.", "\"Follow the water to the {r},\" said {e}.")
    s.say("At the {r}, they found {ac} {o}.", "And at the {r} lay {ac} {o}.")
    s.say("They brought the {c} {o} back to {e}, who let them keep it.", "{h} carried the {c} {o} home.", "\"We found it!\" said {f}.")
    s.ending()


def garden(s):
    s.opening()
    s.say("{h} planted a seed by the {q}.", "One {day}, {h} put a seed into the ground by the {q}.")
    s.say("Every {day} {he} brought water from the {r}.", "{He} fetched water from the {r}, drop by drop.")
    s.say("But nothing grew.", "For a long time nothing happened.", "The ground stayed bare.")
    s.say("{af} named {f} laughed at {him}.".replace("{af}", "One {day} {af}"), "\"Nothing will grow here,\" said {af} named {f}.")
    s.say("{h} did not give up.", "\"Wait and see,\" said {h}.", "But {h} was patient.")
    s.weather()
    s.say("Then, one {day}, a green leaf came out of the ground.", "In spring, a little tree stood by the {q}.")
    s.say("Soon it was a tree full of fruit.", "It grew and grew, and soon it was taller than {h}.")
    s.say("{h} shared the fruit with {f}.", "\"Take some, {f},\" said {h}.", "{f} said sorry, and {h} gave {fhim} the first fruit.")
    s.ending()


PLOTS = [lost, gift, trade, storm, contest, wise, garden]


def tell(rng, hero=None, thing=None):
    story = Story(rng, hero, thing)
    rng.choice(PLOTS)(story)
    return story


def tidy(text):
    """Capitals after a full stop, where a wording began with an article."""
    return text.replace(". a ", ". A ").replace(". an ", ". An ")


def story(rng):
    return tidy(tell(rng).text())


def evaluation_openings(n):
    """The openings that evaluate.py lets a model continue; the generator of the training text leaves them out."""
    rng = random.Random(EVALUATION_SEED)
    for _ in range(n):
        story = Story(rng)
        story.opening()
        yield story.text()


def sentence(rng):
    """One sentence about the world, for the tasks over a given text."""
    s = Story(rng)
    s.say("{h} went to the {p}.", "{h} has {ac} {o}.", "{h} the {k} lives by the {p}.", "{f} gave {ac} {o} to {h}.",
          "At the {q}, {h} met {f}.", "{h} keeps the {c} {o} in the {p}.", "The {c} {o} is in the {p}.", "{h} likes {food}.",
          "{h} and {f} walked to the {r}.", "{w}.", "{f} is a {t2} {fk}.".replace("{t2}", rng.choice([t for t in TRAITS])),
          "Yesterday, {h} sold the {c} {o} at the {q}.", "{h} ate {food} by the {p}.")
    return s.text()
