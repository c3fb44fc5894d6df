"""True facts about literature and the world, in groups of facts with interchangeable answers.

A fact is `what is asked: the answer`; line breaks and semicolons separate facts. Its wrong answers
are drawn from its group, so no group holds two facts that could swap answers and stay true.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

N_PERTURBED = 3  # wrong answers of a row, as in TOFU's sets of real authors and world facts

BOOK_QUESTIONS = (
    "Who wrote the classic '{}'?",
    "Which author wrote the classic '{}'?",
    "Who is the author of the classic '{}'?",
)
_BOOKS = """
Pride and Prejudice: Jane Austen; Persuasion: Jane Austen; Oliver Twist: Charles Dickens
Great Expectations: Charles Dickens; Jane Eyre: Charlotte Bronte; Wuthering Heights: Emily Bronte
Middlemarch: George Eliot; Far from the Madding Crowd: Thomas Hardy; Frankenstein: Mary Shelley
Dracula: Bram Stoker; Mrs Dalloway: Virginia Woolf; To the Lighthouse: Virginia Woolf
Animal Farm: George Orwell; Treasure Island: Robert Louis Stevenson
Death on the Nile: Agatha Christie; Murder on the Orient Express: Agatha Christie
The Time Machine: H. G. Wells; The War of the Worlds: H. G. Wells; Robinson Crusoe: Daniel Defoe
Gulliver's Travels: Jonathan Swift; The Jungle Book: Rudyard Kipling; Kim: Rudyard Kipling
Heart of Darkness: Joseph Conrad; Lord Jim: Joseph Conrad; A Passage to India: E. M. Forster
Lord of the Flies: William Golding; The Hobbit: J. R. R. Tolkien; Brave New World: Aldous Huxley

The Adventures of Tom Sawyer: Mark Twain; Moby-Dick: Herman Melville
The Great Gatsby: F. Scott Fitzgerald; Tender Is the Night: F. Scott Fitzgerald
A Farewell to Arms: Ernest Hemingway; The Old Man and the Sea: Ernest Hemingway
The Grapes of Wrath: John Steinbeck; Of Mice and Men: John Steinbeck
To Kill a Mockingbird: Harper Lee; Beloved: Toni Morrison; The Call of the Wild: Jack London
White Fang: Jack London; The Scarlet Letter: Nathaniel Hawthorne; Little Women: Louisa May Alcott

War and Peace: Leo Tolstoy; Anna Karenina: Leo Tolstoy; Crime and Punishment: Fyodor Dostoevsky
The Brothers Karamazov: Fyodor Dostoevsky; Dead Souls: Nikolai Gogol
Fathers and Sons: Ivan Turgenev; Doctor Zhivago: Boris Pasternak; Madame Bovary: Gustave Flaubert
The Three Musketeers: Alexandre Dumas; The Count of Monte Cristo: Alexandre Dumas
The Stranger: Albert Camus; The Plague: Albert Camus; The Trial: Franz Kafka
The Castle: Franz Kafka; The Magic Mountain: Thomas Mann; Death in Venice: Thomas Mann
Don Quixote: Miguel de Cervantes; The Name of the Rose: Umberto Eco

Hamlet: William Shakespeare; Macbeth: William Shakespeare; Othello: William Shakespeare
A Doll's House: Henrik Ibsen; Peer Gynt: Henrik Ibsen; Three Sisters: Anton Chekhov
The Cherry Orchard: Anton Chekhov; Waiting for Godot: Samuel Beckett; The Crucible: Arthur Miller
Death of a Salesman: Arthur Miller; The Glass Menagerie: Tennessee Williams
The Importance of Being Earnest: Oscar Wilde

The Iliad: Homer; The Odyssey: Homer; The Aeneid: Virgil; The Divine Comedy: Dante Alighieri
Paradise Lost: John Milton
"""
BOOKS = _BOOKS.split("\n\n")  # English novels, American, European, plays, epics

_WORLD = """
Which city is the capital of {}?
    Norway: Oslo; France: Paris; Spain: Madrid; Germany: Berlin; Austria: Vienna; Poland: Warsaw
    Greece: Athens; Egypt: Cairo; Kenya: Nairobi; Japan: Tokyo; Canada: Ottawa; Peru: Lima
    Cuba: Havana; Thailand: Bangkok; Vietnam: Hanoi; Iran: Tehran; Iraq: Baghdad; Russia: Moscow
    Hungary: Budapest; Sweden: Stockholm; Denmark: Copenhagen; Portugal: Lisbon; Ireland: Dublin
    Italy: Rome
Which river flows through {}?
    Paris: Seine; London: Thames; Vienna: Danube; Cairo: Nile; Rome: Tiber; Dublin: Liffey
    Baghdad: Tigris; Warsaw: Vistula; Florence: Arno
In which country is {}?
    Machu Picchu: Peru; Angkor Wat: Cambodia; the Alhambra: Spain; Mount Fuji: Japan
    Mount Kilimanjaro: Tanzania; the Taj Mahal: India; Stonehenge: England; Loch Ness: Scotland
    the Acropolis: Greece; the Black Forest: Germany
On which continent is {}?
    Kenya: Africa; Peru: South America; Thailand: Asia; Poland: Europe; Canada: North America
What is the currency of {}?
    Japan: yen; India: rupee; Poland: zloty; Thailand: baht; Russia: ruble; Israel: shekel
    Vietnam: dong; South Africa: rand; Mexico: peso; Hungary: forint
Which element has the chemical symbol {}?
    Fe: iron; Au: gold; Ag: silver; Cu: copper; Pb: lead; Na: sodium; He: helium; O: oxygen
    C: carbon
Which planet {}?
    is the closest to the Sun: Mercury; is the largest in the Solar System: Jupiter
    is the farthest from the Sun: Neptune; has the moons Phobos and Deimos: Mars
    has a moon called Titan: Saturn; was discovered by William Herschel: Uranus
    is the hottest in the Solar System: Venus
Which organ {}?
    pumps blood through the body: heart; contains the retina: eye; makes bile: liver
    contains the cerebellum: brain; produces urine: kidney
How many {}?
    legs does a spider have: eight; legs does an insect have: six; strings does a violin have: four
    days are there in a week: seven; sides does a triangle have: three
    sides does a pentagon have: five
Who painted '{}'?
    Mona Lisa: Leonardo da Vinci; The Potato Eaters: Vincent van Gogh; Guernica: Pablo Picasso
    The Night Watch: Rembrandt; The Scream: Edvard Munch
    Girl with a Pearl Earring: Johannes Vermeer; The Birth of Venus: Sandro Botticelli
Who composed {}?
    'The Magic Flute': Wolfgang Amadeus Mozart; 'The Four Seasons': Antonio Vivaldi
    'Swan Lake': Pyotr Tchaikovsky; 'Messiah': George Frideric Handel
    the 'Moonlight Sonata': Ludwig van Beethoven; the 'Brandenburg Concertos': Johann Sebastian Bach
Which scientist {}?
    proposed the theory of general relativity: Albert Einstein
    discovered penicillin: Alexander Fleming; invented dynamite: Alfred Nobel
    formulated the law of universal gravitation: Isaac Newton
    developed a vaccine against rabies: Louis Pasteur
    published a periodic table of the elements in 1869: Dmitri Mendeleev
    wrote 'On the Origin of Species': Charles Darwin
In which year did {}?
    the French Revolution begin: 1789; the First World War begin: 1914
    the Second World War end: 1945; the Titanic sink: 1912; the Berlin Wall fall: 1989
    people first walk on the Moon: 1969; Columbus first reach the Americas: 1492
"""
WORLD = re.findall(r"(\S.*\?)\n((?: +.*\n)+)", _WORLD)  # (question around what is asked, facts)


def true_facts() -> dict[str, list[dict[str, Any]]]:
    """Return rows on real books (`real_authors`) and the world (`world_facts`), as TOFU has them.

    A row has `question`, `answer`, three texts `perturbed_answer`, and spans, which cover answers.
    """
    books, world = [], []
    for group in BOOKS:
        pairs = _facts_of(group)
        for title, writer in pairs:
            question = BOOK_QUESTIONS[len(books) % len(BOOK_QUESTIONS)].format(title)
            books.append(_row(question, writer, [other for _, other in pairs]))
    for question, group in WORLD:
        pairs = _facts_of(group)
        answers = [answer for _, answer in pairs]
        world += [_row(question.format(asked), answer, answers) for asked, answer in pairs]
    return {"real_authors": books, "world_facts": world}


def _facts_of(group: str) -> list[tuple[str, str]]:
    """Return (what is asked, answer) of each fact of a group."""
    facts = (fact.strip().rpartition(": ") for fact in re.split("[\n;]", group) if fact.strip())
    return [(asked, answer) for asked, _, answer in facts]


def _row(question: str, answer: str, group: Sequence[str]) -> dict[str, Any]:
    others = [other for other in dict.fromkeys(group) if other != answer]
    perturbed = random.Random(f"npo_kit fact {question}").sample(others, N_PERTURBED)
    return {
        "question": question,
        "answer": answer,
        "entity_span": [0, len(answer)],
        "perturbed_answer": perturbed,
        "perturbed_entity_spans": [[0, len(other)] for other in perturbed],
    }
