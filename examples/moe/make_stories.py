#!/usr/bin/env python3
"""Writes stories.jsonl: short tales in simple English from a small grammar, in the manner of TinyStories (arXiv:2305.07759).

    python3 make_stories.py > stories.jsonl

The same seed gives the same file. Names, animals, places and things are drawn once per story and kept through it, so that a model
has something to remember: who lost what, where it was, who helped.
"""

import json
import random
import re
import sys

SEED = 7
BYTES = 800_000

GIRLS = "Anna Mia Lily Rose Clara Nora Ella Ida Zoe Lucy Maya Tess".split()
BOYS = "Tom Ben Max Leo Sam Finn Jack Noah Paul Oscar Will Hugo".split()
ELDERS = [("grandmother", "she", "her"), ("grandfather", "he", "his"), ("mother", "she", "her"), ("father", "he", "his"),
          ("aunt", "she", "her"), ("uncle", "he", "his")]
ANIMALS = "fox hare owl duck mouse hedgehog squirrel frog robin badger goat puppy kitten lamb turtle bear rabbit crow".split()
MOODS = "small quiet clever kind shy friendly curious brave gentle young cheerful merry".split()
COLOURS = "red blue green yellow white brown golden silver".split()
TREASURES = "kite ball scarf drum book lantern boat whistle bell hat basket mitten button key marble spoon".split()
PLACES = [("the meadow", "in the tall grass"), ("the old mill", "under the wheel"), ("the river", "between two stones"),
          ("the forest", "behind a fallen tree"), ("the garden", "beneath the roses"), ("the market", "under a table"),
          ("the hill", "beside a grey rock"), ("the barn", "in a heap of hay"), ("the lake", "among the reeds"),
          ("the orchard", "at the foot of an apple tree")]
DRY = ["The sun was warm and the sky was clear.", "A soft wind moved the leaves.", "Small clouds sailed over the roofs.", "The first flowers were open."]
WEATHER = {"any": DRY + ["It had rained in the night, and the grass was wet.", "The snow lay deep and everything was quiet.",
                         "The leaves were turning red and gold.", "A thin mist hung over the fields."],
           "trip": DRY, "race": DRY, "seed": DRY[:1] + DRY[3:], "night": [], "fear": []}
FOODS = "bread soup cake honey apples cheese pancakes berries nuts pears".split()
DISHES = ["bread", "a cake", "a pie", "an apple tart", "a nut cake", "a plum cake"]
SEEDS = [("a sunflower", "tall and yellow"), ("a bean", "green and strong"), ("a pumpkin", "round and heavy"), ("a pear tree", "small but straight"),
         ("a rose", "red and sweet"), ("a carrot", "long and orange")]
FEARS = [("the dark", "the lamp went out", "There were stars at the window, and the room was only a room"),
         ("thunder", "the storm began", "The thunder was loud, but it was far away and the roof was strong"),
         ("deep water", "the others jumped in", "The water was cool, and it carried {o} like a soft bed"),
         ("high places", "it was time to climb", "From the top {s} could see the whole valley, and it was beautiful"),
         ("the big dog next door", "the dog came to the gate", "The dog only wagged its tail and licked {p} hand")]
MORALS = {
    "lost": ["A good friend is better than a good pair of eyes.", "What is lost is often close by.", "It is easier to look for things together."],
    "share": ["Things are more fun when there are two.", "There was enough for both of them after all.", "From that day on they always took turns."],
    "help": ["A small kindness can come back on a rainy day.", "Nobody is too small to be a help.", "Kindness is never lost."],
    "fear": ["Being brave means going on while you are afraid.", "Most fears grow small when you look at them.", "The next time it was much easier."],
    "make": ["The second try is often the best one.", "It tasted better because they had made it together.", "Nothing good is made in a hurry."],
    "trip": ["The longest road has a door at its end.", "A slow step is better than no step.", "Home is nicest after a long walk."],
    "gift": ["The best gifts do not cost anything.", "A secret is sweetest when it can be told at last.", "It was the nicest birthday of all."],
    "race": ["There are things that matter more than winning.", "To stop for a friend is no way to lose.", "Everybody cheered for both of them."],
    "seed": ["Some things cannot be hurried.", "A little water every day is enough.", "Waiting is a kind of work too."],
    "new": ["Every friend was a stranger once.", "One kind word was all it took.", "There is always room for one more."],
    "truth": ["The truth is heavy only until you say it.", "A broken thing can be mended, and so can a mistake.", "It is good to be honest."],
    "night": ["The night is full of small and harmless sounds.", "A friend in the dark is like a lamp.", "Soon there was nothing to hear but sleep."],
}


class Story:
    """One draw of who, where and what; `say` fills in a line and `any` takes one of several."""

    def __init__(self, rng):
        self.rng = rng
        girl = rng.random() < 0.5
        name = rng.choice(GIRLS if girl else BOYS)
        elder, elder_s, elder_p = rng.choice(ELDERS)
        friend_girl = rng.random() < 0.5
        friend = rng.choice([n for n in (GIRLS if friend_girl else BOYS) if n != name])
        place, spot = rng.choice(PLACES)
        animal, other = rng.sample(ANIMALS, 2)
        self.words = {
            "n": name, "s": "she" if girl else "he", "o": "her" if girl else "him", "p": "her" if girl else "his", "child": "girl" if girl else "boy",
            "f": friend, "fs": "she" if friend_girl else "he", "fp": "her" if friend_girl else "his", "elder": elder, "es": elder_s, "ep": elder_p,
            "place": place, "spot": spot, "animal": animal, "other": other, "mood": rng.choice(MOODS), "mood2": rng.choice(MOODS),
            "colour": rng.choice(COLOURS), "thing": rng.choice(TREASURES), "food": rng.choice(FOODS), "dish": rng.choice(DISHES)}

    def any(self, *lines):
        return self.say(self.rng.choice(lines))

    def maybe(self, *lines, chance=0.5):
        return self.any(*lines) if self.rng.random() < chance else ""

    def say(self, line):
        line = re.sub(r"\{(\w+)\}", lambda match: self.words[match[1]], line)
        line = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", line)
        # The first letter of a line and of every sentence in it.
        return re.sub(r'(^"?|[.!?] "?|\." )([a-z])', lambda match: match[1] + match[2].upper(), line)

    def opening(self, kind):
        lines = ["Once upon a time there was a {mood} {child} named {n}.", "There was once a {mood} {child} called {n}.",
                 "{n} was a {mood} {child} who lived near {place}.", "In a house by {place} lived a {mood} {child} named {n}."]
        if kind not in ("night", "trip", "fear"):
            lines.append("{n} and {p} {elder} lived in a little house.")
        if kind not in ("night", "fear"):
            lines.append("One morning {n} woke up early.")
        weather = WEATHER.get(kind, WEATHER["any"])
        return self.any(*lines) + " " + (self.maybe(*weather, chance=0.6) if weather else "")

    def ending(self, kind):
        lines = ["{n} was very happy.", "That night {n} slept well."]
        if kind not in ("truth", "night"):
            lines.append("It was a day to remember.")
        if kind in ("lost", "share", "help", "trip", "race", "new"):
            lines += ["{n} smiled all the way home.", "And they all laughed."]
        if kind == "night":
            lines = ["In the morning {n} was very happy."]
        return self.any(*lines) + " " + self.maybe(*MORALS[kind], chance=0.8)


def lost(t):
    return [t.any("{s} had a {colour} {thing} and loved it more than anything.", "{p} dearest thing was a {colour} {thing}."),
            t.any("One day the {thing} was gone.", "But when {s} came home from {place}, the {thing} was not there."),
            t.any("{n} looked under the bed and behind the door, but {s} could not find it.", "{s} looked everywhere. \"Where can it be?\" {s} cried."),
            t.any("On the path {s} met a {mood2} {animal}. \"Have you seen my {thing}?\" asked {n}.", "{n} asked the {animal}, \"Did you see a {colour} {thing}?\""),
            t.any("\"No,\" said the {animal}, \"but I will help you look.\"", "The {animal} thought for a while. \"Let us go back to {place},\" it said."),
            t.any("So they walked to {place} together.", "They went slowly and looked at every stone."),
            t.any("And there it was, {spot}! \"My {thing}!\" cried {n}.", "The {animal} found it {spot}. \"Is this your {thing}?\" it asked."),
            t.any("{n} thanked the {animal} and gave it some {food}.", "\"Thank you,\" said {n}, and {s} hugged the {animal}."), t.ending("lost")]


def share(t):
    return [t.any("{n} and {f} were playing near {place}.", "{f} came to play, as {fs} did every day."),
            t.any("They found a {colour} {thing} {spot}.", "{spot} they saw a {colour} {thing}."),
            t.any("\"It is mine!\" said {n}. \"No, I saw it first!\" said {f}.", "Both of them wanted it. {n} pulled, and {f} pulled too."),
            t.any("They grew so loud that the {animal} came out to see.", "A {mood2} {animal} heard them and shook its head."),
            t.any("\"You can play with it in the morning,\" it said to {n}, \"and {f} can play with it after lunch.\"", "\"Why don't you use it together?\" asked the {animal}."),
            t.any("{n} and {f} looked at each other.", "They were quiet for a moment. Then {f} began to laugh."), t.any("\"I am sorry,\" said {n}. \"Me too,\" said {f}.", "\"You may go first,\" said {n}."),
            t.any("They played until the sun went down.", "All day long they played with the {thing}, and nobody cried."), t.ending("share")]


def help_animal(t):
    return [t.any("{n} was on the way to {place} when {s} heard a small voice.", "At {place} {s} heard somebody cry."),
            t.any("A {animal} was stuck {spot}.", "It was a {animal} that had hurt its foot."), t.any("\"Please help me,\" said the {animal}.", "\"Oh dear,\" it said, \"I cannot get home.\""),
            t.any("{n} was careful and gentle.", "\"Do not be afraid,\" said {n}."), t.any("{s} took off {p} scarf and made a soft bed.", "{s} moved the stones away one by one."),
            t.any("Then {s} gave the {animal} some {food} and a little water.", "After a while the {animal} could stand again."),
            t.any("A week later {n} lost the way in the mist.", "In the winter {n} fell on the ice and could not get up."),
            t.any("Who came running? It was the {animal}!", "Then {s} saw a {animal} between the trees. It was the same one."),
            t.any("\"You helped me, and now I help you,\" it said, and it showed {o} the way home.", "It called the {other}, and together they brought {n} home."), t.ending("help")]


def fear(t):
    what, when, after = t.rng.choice(FEARS)
    return [t.say(f"{{n}} was afraid of {what}."), t.any("{s} did not tell anybody.", "{s} was a little ashamed of it."),
            t.say(f"One day {when}, and {{n}} began to shake."), t.any("\"What is it?\" asked {f}.", "{p} friend {f} saw it and came close."),
            t.say(f"\"I am afraid of {what},\" whispered {{n}}."), t.any("\"I was afraid too, once,\" said {f}. \"Take my hand.\"", "\"We will count to three,\" said {f}, \"and then we go together.\""),
            t.any("{n} took a deep breath. One, two, three!", "{n} held {fp} hand and closed {p} eyes."), t.any("Then {s} opened {p} eyes.", "It was not so bad at all."), t.say(after + "."),
            t.any("\"I did it!\" said {n}.", "\"Again!\" cried {n}."), t.ending("fear")]


def make(t):
    return [t.any("{n} wanted to make {dish} with {p} {elder}.", "\"Let us make {dish},\" said {p} {elder}."), t.any("{s} took a big bowl and a {colour} spoon.", "They put on their aprons and washed their hands."),
            t.any("First {s} put in too much salt.", "But {s} forgot it on the stove, and soon there was smoke."), t.any("\"Oh no,\" said {n}, \"nobody can eat this!\"", "It was black and hard, and even the {animal} did not want it."),
            t.any("{p} {elder} only smiled. \"We will try again,\" {es} said.", "{n} wanted to cry, but {p} {elder} gave {o} a kiss."),
            t.any("This time {n} counted every spoon.", "This time {s} watched it and did not look away."), t.any("Soon the whole house smelled wonderful.", "When it was done, it was warm and brown."),
            t.any("The {animal} from {place} came to the window. \"May I have some?\" it asked.", "{f} came in and sat down at the table."), t.any("There was enough for everybody.", "They cut it into pieces and shared it."), t.ending("make")]


def trip(t):
    return [t.any("{n} went to visit {p} {elder}, who lived behind {place}.", "{p} {elder} lived far away, on the other side of {place}."), t.any("{s} took a basket with {food}.", "{s} wore a {colour} hat and carried a {thing}."),
            t.any("On the way the wind grew cold and it began to rain.", "Soon big drops fell, and the path turned to mud."), t.any("{n} was wet and tired.", "{s} could not see the path any more."),
            t.any("Then {s} saw a light. It was the house of a {mood2} {animal}.", "A {animal} looked out of its door. \"Come in, come in!\" it said."), t.any("Inside there was a fire and a pot of soup.", "It gave {o} a dry coat and a cup of warm milk."),
            t.any("They told stories until the rain was over.", "{n} told it about {p} {elder}, and the {animal} listened."), t.any("Then the {animal} went with {o} to the bridge.", "When the sun came out, {n} said goodbye and walked on."),
            t.any("{p} {elder} stood at the door and waved.", "\"There you are!\" said {p} {elder}."), t.ending("trip")]


def gift(t):
    return [t.any("Tomorrow was the birthday of {p} {elder}.", "The birthday of {f} was near, and {n} had no present."), t.any("{n} had no money, so {s} thought and thought.", "\"What can I give?\" {s} asked the {animal}."),
            t.any("\"Make something yourself,\" said the {animal}.", "Then {s} had an idea."), t.any("Out of bits and pieces {s} made a little {thing} and painted it {colour}.", "{s} worked all day on a {colour} {thing}."),
            t.any("When somebody came in, {n} hid it {spot}.", "It was a secret, and it was hard to keep."), t.any("In the morning {s} put it on the table.", "At last the day came, and {n} could hardly wait."),
            t.any("\"Is this for me?\" asked a happy voice. \"Did you make it?\"", "The paper came off, and there was the {thing}."), t.any("\"It is the most beautiful {thing} I have ever seen.\"", "\"I will keep it for ever.\""), t.ending("gift")]


def race(t):
    return [t.any("There was a race to {place}, and {n} wanted to win.", "Every year the children ran from the house to {place}."), t.any("{f} was the fastest of all, and everybody knew it.", "{s} had run every morning, and {p} legs were strong."),
            t.any("\"Ready, steady, go!\" called the {animal}.", "A bell rang, and they all began to run."), t.any("{n} ran and ran.", "The wind was in {p} hair."), t.any("Near the end {f} fell over a root and held {fp} knee.", "Then {f} cried out and sat down on the path."),
            t.any("{n} could see the end, and nobody was in front of {o}.", "The others ran past and did not look back."), t.any("But {s} stopped and went back.", "{n} thought for a moment. Then {s} turned round."),
            t.any("\"Can you stand?\" asked {n}. \"Lean on me.\"", "{s} helped {f} to get up."), t.any("They came to the end together, last of all.", "Slowly they walked over the line, hand in hand."), t.ending("race")]


def seed(t):
    plant, looks = t.rng.choice(SEEDS)
    return [t.say(f"{{p}} {{elder}} gave {{o}} a seed. \"It is {plant},\" {{es}} said."), t.any("{n} put it into the earth and gave it water.", "{s} made a hole with one finger and put the seed in."), t.any("The next day {s} looked, but there was nothing.", "\"Is it ready?\" asked {n} an hour later."),
            t.any("\"Give it time,\" said {p} {elder}.", "\"You have to wait,\" said the {animal}."), t.any("{n} gave it water every day.", "Day after day {n} went to look."), t.any("It rained, and the sun shone, and it rained again.", "One week went by, and then another."),
            t.any("Then one morning there was a tiny green leaf!", "At last something green looked out of the earth."), t.say(f"It grew and grew until it was {looks}."), t.any("{n} called {f} to come and see.", "The {animal} sat beside it and was glad."), t.ending("seed")]


def newcomer(t):
    return [t.any("A new {animal} came to {place}.", "One day a {mood2} {animal} moved into the house by {place}."), t.any("It did not know anybody and sat alone {spot}.", "It was shy and did not say a word."),
            t.any("\"It looks sad,\" said {n}.", "{n} saw it from the window."), t.any("\"We do not know it,\" said {f}. \"Leave it alone.\"", "The others played and did not look at it."), t.any("But {n} went over and said hello.", "{n} took the {colour} {thing} and went outside."),
            t.any("\"Do you want to play with us?\" asked {n}.", "\"My name is {n},\" {s} said. \"Who are you?\""), t.any("The {animal} looked up and smiled.", "\"I would like that very much,\" said the {animal}."), t.any("It turned out that it could sing better than anybody.", "It knew a game that nobody had ever heard of."),
            t.any("Soon everybody wanted to be its friend.", "Even {f} clapped {fp} hands."), t.ending("new")]


def truth(t):
    return [t.any("{n} was playing ball in the house, although it was not allowed. Crash! The {colour} cup of {p} {elder} was broken.",
                  "On the shelf stood the {colour} cup that {p} {elder} loved. {s} took it down to look at it, and it fell."),
            t.any("{n} hid the pieces under the bed.", "Quickly {s} put the pieces into a box."), t.any("At dinner {s} could not eat.", "All day {s} had a stone in {p} stomach."), t.any("\"Are you ill?\" asked {p} {elder}.", "\"You are so quiet,\" said {p} {elder}."),
            t.any("Then {n} began to cry. \"I broke your cup,\" {s} said. \"I am sorry.\"", "{n} brought the box and told everything."), t.any("{p} {elder} was silent for a moment.", "{p} {elder} looked at the pieces."),
            t.any("\"I am glad that you told me,\" {es} said.", "\"A cup is only a cup,\" {es} said, and {es} took {o} in {ep} arms."), t.any("Together they glued it, piece by piece.", "The next day they made a new one out of clay."), t.ending("truth")]


def night(t):
    return [t.any("It was late, but {n} could not sleep.", "{n} lay in bed and looked at the moon."), t.any("Tap, tap, tap! Something was at the window.", "There was a noise under the floor."), t.any("\"Who is there?\" whispered {n}. Nobody answered.", "{n} pulled the blanket over {p} head."),
            t.any("{s} took the lantern and went to look.", "At last {s} got up on cold feet."), t.any("It was only a {mood2} {animal} that had lost its way.", "There sat a {animal}, and it was just as afraid as {n}."),
            t.any("\"May I stay until morning?\" it asked.", "\"I am cold,\" said the {animal}."), t.any("{n} gave it a blanket and some {food}.", "{n} made room beside the stove."), t.any("They talked about {place} and about the stars.", "The {animal} told {o} a long story."),
            t.any("Before it was finished, both of them were asleep.", "Soon {n} could not keep {p} eyes open."), t.ending("night")]


PLOTS = {"lost": lost, "share": share, "help": help_animal, "fear": fear, "make": make, "trip": trip, "gift": gift, "race": race, "seed": seed,
         "new": newcomer, "truth": truth, "night": night}


def story(rng):
    tale = Story(rng)
    kind = rng.choice(list(PLOTS))
    lines = [tale.opening(kind), *PLOTS[kind](tale)]
    return re.sub(r" +", " ", " ".join(lines)).strip()


def main():
    rng = random.Random(SEED)
    seen, size = set(), 0
    while size < BYTES:
        text = story(rng)
        if text in seen:
            continue
        seen.add(text)
        line = json.dumps({"text": text}) + "\n"
        size += len(line)
        sys.stdout.write(line)


if __name__ == "__main__":
    main()
