"""Everyday concepts: the names of the emoji that people are likely to ask for. Our selection, about 400 of 1,900."""

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
bacon, baguette bread, bread, broccoli, butter, candy, coral, custard, falafel, fire, garlic, green salad, high voltage,
hot beverage, leafy green, locked, popcorn, salt, shaved ice, soap, spaghetti, sushi, tennis, thread, wood, yarn
"""


def _names(*lists: str) -> frozenset[str]:
    return frozenset(" ".join(name.split()) for names in lists for name in names.split(","))


EVERYDAY = _names(ANIMALS, FOOD, NATURE, THINGS)
MASS = _names(UNCOUNTED)
