"""Makes a text of short stories: what small story models were trained to continue. The same in every run.

Sentences are put together at random, so that no story is like another, and no model has seen them. The words are plain
English in ASCII, since a small vocabulary may lack the bytes of more."""
import random

NAMES = [("Lily", "she", "her"), ("Tom", "he", "his"), ("Mia", "she", "her"), ("Ben", "he", "his"), ("Sue", "she", "her"), ("Max", "he", "his"), ("Anna", "she", "her"), ("Sam", "he", "his")]
FRIENDS = ["dog", "cat", "bird", "rabbit", "mom", "dad", "sister", "brother", "grandma", "friend"]
PLACES = ["park", "garden", "forest", "house", "beach", "school", "farm", "kitchen", "yard", "shop"]
THINGS = ["ball", "box", "kite", "book", "hat", "cake", "boat", "flower", "doll", "stone", "apple", "car", "drum", "blanket"]
LOOKS = ["big", "small", "red", "blue", "shiny", "old", "soft", "pretty", "funny", "green", "yellow", "new"]
MOODS = ["happy", "sad", "scared", "excited", "tired", "proud", "curious", "angry"]

OPENINGS = [
    "Once upon a time, there was a little {kind} named {name}. {He} lived in a {look} house near the {place}.",
    "One day, {name} went to the {place} with {his} {friend}. The sun was warm and the sky was blue.",
    "{name} had a {look} {thing}. {He} took it to the {place} every morning.",
    "It was a cold day, and {name} wanted to play in the {place}. {He} put on {his} coat and ran outside.",
]
MIDDLES = [
    "{He} saw a {look} {thing} under a tree. \"What is this?\" {he} asked.",
    "{name} tried to pick up the {thing}, but it was too heavy. {He} felt {mood}.",
    "{His} {friend} came to see what was wrong. \"Do not be {mood},\" said the {friend}. \"I can help you.\"",
    "Then a loud sound came from the {place}. {name} was {mood} and wanted to hide.",
    "They looked for the {thing} all day, but they could not find it.",
    "\"Can I play with your {thing}?\" asked {his} {friend}. {name} thought about it and said yes.",
    "The {thing} fell into the water. {name} began to cry, because {he} loved it very much.",
    "{He} gave a piece of bread to the {friend}, and they sat down together on the grass.",
    "{name} wanted to show the {look} {thing} to {his} {friend}, so {he} ran home as fast as {he} could.",
    "It started to rain, and the {thing} got wet. \"Let us go to the {place},\" said {name}.",
    "They made a plan. First they found a long stick, and then they pulled the {thing} out of the mud.",
    "The {friend} was {mood} and did not want to share. {name} waited and smiled.",
]
ENDINGS = [
    "In the end, {name} and {his} {friend} were very happy. They played until it was dark.",
    "{name} learned that it is good to share. From that day on, {he} always helped {his} {friend}.",
    "{His} mom gave {name} a big hug. \"I am proud of you,\" she said.",
    "{He} put the {thing} in a safe place and went to bed. It was the best day ever.",
]


def text(n_stories, seed=1):
    """So many stories, an empty line between two."""
    rng = random.Random(seed)
    # Of the generator only `random` promises the same numbers in every version of Python.
    pick = lambda entries: entries[int(rng.random() * len(entries))]
    return "\n\n".join(story(pick) for _ in range(n_stories)) + "\n"


def story(pick):
    name, he, his = pick(NAMES)
    kind = "girl" if he == "she" else "boy"
    thing = pick(THINGS)
    people = {"name": name, "kind": kind, "he": he, "He": he.capitalize(), "his": his, "His": his.capitalize(), "thing": thing}
    lines = [pick(OPENINGS), *(pick(MIDDLES) for _ in range(4)), pick(ENDINGS)]
    return " ".join(line.format(**people, friend=pick(FRIENDS), place=pick(PLACES), look=pick(LOOKS), mood=pick(MOODS)) for line in lines)
