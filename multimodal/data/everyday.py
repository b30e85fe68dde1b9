"""Everyday concepts: the names of the emoji that people are likely to ask for, and what else these are called. Our
selection, about 400 of 1,900."""

ANIMALS = """
ant, badger, bat, bear, beaver, beetle, bird, bison, black cat, boar, bug, butterfly, camel, cat, cat face, chicken,
chipmunk, cow, cow face, crab, cricket, crocodile, deer, dodo, dog, dog face, dolphin, donkey, dove, dragon,
dragon face, duck, eagle, elephant, fish, flamingo, fly, fox, frog, giraffe, goat, goose, gorilla, hamster, hedgehog,
hippopotamus, honeybee, horse, horse face, jellyfish, kangaroo, koala, lady beetle, leopard, lion, lizard, llama,
lobster, mammoth, monkey, monkey face, moose, mosquito, mouse, mouse face, octopus, orangutan, otter, owl, ox, oyster,
panda, parrot, peacock, penguin, pig, pig face, polar bear, poodle, rabbit, rabbit face, raccoon, ram, rat,
rhinoceros, rooster, sauropod, scorpion, seal, shark, shrimp, skunk, sloth, snail, snake, spider, squid, swan,
T-Rex, tiger, tiger face, tropical fish, turkey, turtle, unicorn, whale, wolf, worm, zebra
"""
FOOD = """
avocado, bacon, bagel, baguette bread, banana, beans, beer mug, bell pepper, birthday cake, blueberries, bread,
broccoli, bubble tea, burrito, butter, candy, carrot, cheese wedge, cherries, chestnut, chocolate bar, coconut,
cocktail glass, cookie, croissant, cucumber, cupcake, custard, dango, doughnut, dumpling, egg, eggplant,
falafel, french fries, fried shrimp, garlic, glass of milk, grapes, green apple, green salad, hamburger, honey pot,
hot beverage, hot dog, hot pepper, ice cream, kiwi fruit, leafy green, lemon, lollipop, mango, melon, mushroom, olive,
onion, pancakes, peach, peanuts, pear, pie, pineapple, pizza, popcorn, potato, pretzel, red apple, rice ball, salt,
sandwich, shaved ice, shortcake, soft ice cream, spaghetti, strawberry, sushi, taco, tangerine, teapot, tomato,
tropical drink, tumbler glass, waffle, watermelon, wine glass
"""
NATURE = """
blossom, bouquet, cactus, cherry blossom, cloud, comet, coral, crescent moon, deciduous tree, desert island, droplet,
ear of corn, evergreen tree, fallen leaf, fire, four leaf clover, full moon, herb, hibiscus, high voltage, maple leaf,
mountain, palm tree, potted plant, rainbow, ringed planet, rock, rose, seedling, snowflake, snowman, spider web,
spiral shell, star, sun, sun with face, sunflower, tornado, tulip, volcano, water wave, wood
"""
THINGS = """
accordion, airplane, alarm clock, ambulance, anchor, artist palette, automobile, axe, baby bottle, backpack, balloon,
banjo, baseball, basket, basketball, bathtub, bed, bell, bicycle, bomb, bone, books, bow and arrow, boxing glove,
brain, brick, briefcase, broom, bucket, bus, camera, candle, canoe, castle, chair, church, closed umbrella,
compass, couch and lamp, crayon, crown, crystal ball, delivery truck, desktop computer, door, dress, drum, envelope,
eye, factory, feather, ferris wheel, fire engine, fire extinguisher, fishing pole, floppy disk, flute,
fork and knife, fountain, framed picture, game die, gear, gem stone, ghost, glasses, gloves, graduation cap, guitar,
hammer, handbag, headphone, helicopter, high-heeled shoe, house, jack-o-lantern, jeans, key, kick scooter,
kite, ladder, laptop, light bulb, lipstick, locked, locomotive, magic wand, magnet, maracas, memo, microphone, microscope,
mirror, mobile phone, money bag, motor scooter, motorcycle, musical note, necktie, newspaper, old key, open book,
paintbrush, paperclip, parachute, pen, pencil, pick, pill, police car, printer, puzzle piece, racing car,
radio, red heart, ribbon, ring, robot, rocket, roller skate, running shoe, safety pin, sailboat, saxophone, scarf,
scissors, screwdriver, shield, shopping cart, skateboard, skull, sled, soap, soccer ball, socks, speedboat, sponge,
spoon, stethoscope, sunglasses, syringe, t-shirt, taxi, teddy bear, telephone, telescope, television, tennis, tent,
thermometer, thread, toilet, top hat, tractor, train, treasure chest, trophy, trumpet, umbrella, video game, violin,
volleyball, watch, window, woman’s hat, wrapped gift, wrench, yarn, yo-yo
"""
# names that take no article
UNCOUNTED = """
beer, cheese, chocolate, coffee, corn, lettuce, lightning, maize, milk, pasta, saturn, wine, whisky,
bacon, baguette bread, bread, broccoli, butter, candy, coral, custard, falafel, fire, garlic, green salad, high voltage,
hot beverage, leafy green, locked, popcorn, salt, shaved ice, soap, spaghetti, sushi, tennis, thread, wood, yarn
"""
# what else people call them
OTHERWISE = """
airplane: plane, aeroplane, jet; alarm clock: clock; artist palette: palette; automobile: car; backpack: rucksack;
baguette bread: baguette; bat: flying bat; beans: bean; beer mug: beer, mug of beer; bicycle: bike; birthday cake: cake;
blossom: flower, yellow flower; blueberries: blueberry; bouquet: bunch of flowers; bow and arrow: bow; bug: caterpillar;
candy: sweet; cat face: face of a cat, head of a cat; cheese wedge: cheese, piece of cheese; cherries: cherry;
cherry blossom: pink flower; chicken: hen; chipmunk: squirrel; chocolate bar: chocolate, bar of chocolate;
cocktail glass: cocktail, martini; cookie: biscuit; couch and lamp: couch, sofa; cow face: face of a cow, head of a cow;
crescent moon: moon, half moon; crocodile: alligator; custard: pudding; deciduous tree: tree; delivery truck: truck, lorry;
desert island: island; desktop computer: computer; dog face: face of a dog, head of a dog; doughnut: donut;
dragon face: face of a dragon, head of a dragon; droplet: drop of water, water drop; ear of corn: corn, maize;
eggplant: aubergine; envelope: letter; evergreen tree: pine tree, fir tree; fire: flame; fire engine: fire truck;
fishing pole: fishing rod; floppy disk: disk; four leaf clover: clover; framed picture: painting; french fries: fries;
fried shrimp: fried prawn; game die: dice; gear: cogwheel; gem stone: diamond, jewel; glass of milk: milk;
glasses: spectacles; graduation cap: student's hat; green salad: salad; hamburger: burger, cheeseburger; handbag: lady's bag;
headphone: headphones; high voltage: lightning, lightning bolt; high-heeled shoe: high heel;
hippopotamus: hippo; honey pot: pot of honey, jar of honey; honeybee: bee; horse face: face of a horse, head of a horse;
hot beverage: coffee, cup of coffee, cup of tea; hot pepper: chili, chili pepper; house: home;
jack-o-lantern: halloween pumpkin, pumpkin; kick scooter: scooter; kiwi fruit: kiwi; lady beetle: ladybug, ladybird;
laptop: notebook computer; leafy green: lettuce; light bulb: bulb, lamp; locked: padlock, lock;
locomotive: steam train, steam engine; memo: note; microphone: mic; mobile phone: phone, smartphone;
money bag: bag of money; monkey face: face of a monkey, head of a monkey; motor scooter: moped; motorcycle: motorbike;
mouse face: face of a mouse, head of a mouse; musical note: note of music; necktie: tie; newspaper: paper;
open book: book; orangutan: ape; paintbrush: brush; panda: panda bear; peanuts: peanut; pick: pickaxe;
pig face: face of a pig, head of a pig; pill: tablet; pizza: slice of pizza; polar bear: white bear;
puzzle piece: piece of a puzzle; rabbit: bunny; rabbit face: face of a rabbit, head of a rabbit; racing car: race car;
rhinoceros: rhino; ribbon: pink bow; ringed planet: planet, saturn; rock: stone; rooster: cock; running shoe: sneaker, shoe;
sailboat: boat, sailing boat; sauropod: dinosaur, brontosaurus; seedling: sprout; shrimp: prawn; soccer ball: football ball;
sled: sledge; soft ice cream: ice cream cone; spaghetti: pasta; spider web: cobweb; spiral shell: shell, seashell;
sun with face: smiling sun; t-shirt: shirt, tee shirt; T-Rex: tyrannosaurus; tangerine: mandarin, clementine;
television: tv, tv set; tennis: tennis racket; thread: spool of thread; tiger face: face of a tiger, head of a tiger;
top hat: hat; tropical drink: fruit cocktail; tumbler glass: whisky, glass of whisky; turtle: tortoise;
video game: gamepad, game controller; water wave: wave; watch: wristwatch; wine glass: wine, glass of wine;
woman’s hat: lady's hat; wrapped gift: gift, present; wrench: spanner; yarn: ball of yarn, ball of wool
"""


def _names(*lists: str) -> frozenset[str]:
    return frozenset(" ".join(name.split()) for names in lists for name in names.split(","))


EVERYDAY = _names(ANIMALS, FOOD, NATURE, THINGS)
MASS = _names(UNCOUNTED)


def _otherwise() -> dict[str, tuple[str, ...]]:
    """Name in lower case -> its synonyms."""
    entries = (entry.split(":") for entry in " ".join(OTHERWISE.split()).split(";"))
    return {
        name.strip().replace("’", "'").lower(): tuple(other.strip() for other in others.split(","))
        for name, others in entries
    }


SYNONYMS = _otherwise()
