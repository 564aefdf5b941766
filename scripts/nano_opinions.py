#!/usr/bin/env python3
"""Opinions for the default models to learn from: short texts put together from the word lists below, each with its verdict.

usage: nano_opinions.py [--documents N] [--seed S]
       nano_opinions.py --questions N --with TEXT.jsonl [--masked tokenizer.json] [--seed S]

The first prints documents, two empty lines between two of them. The second prints rows {"prompt", "completion"}: a text, and its
verdict, which alone is scored in training; and for every 8 of them a piece of another document of TEXT.jsonl. For a masked model
the rows are {"ids", "mask_positions", "labels"}: the verdict is behind masks, and so are some tokens of the pieces (needs the
package tokenizers). The same seed gives the same texts.

A model of a few million parameters that has read only a few million tokens has not met the word "dreary" often enough to know
what it says about a film. Here it does, in short texts of many forms, and it learns that a text may be followed by a verdict:
a document is one way of asking and of answering (its heading, its two words for "yes, liked" and "no, not liked", its signs),
used for several texts. What is asked for is thus to be read off what stands in front: which is what a prompt is for.

The pair good/bad, in which the demonstration asks, is not among the verdicts: the prompt has something left to learn.
"""

import argparse
import json
import random
from pathlib import Path

POSITIVE = """
absorbing accomplished admirable adorable affecting affectionate amazing ambitious amusing appealing appetising astonishing
astute attentive authentic beautiful beguiling believable beloved bold bracing breathtaking brave bright brilliant brisk
calm captivating careful caring charming cheerful classic classy clean clear clever cohesive colourful comfortable comforting
compelling confident considerate convincing convenient cosy courageous crafty creamy crisp cute dazzling deep delectable
delicate delicious delightful dependable deft detailed dignified disarming durable dreamy eager easy effective efficient elegant
eloquent enchanting endearing energetic engaging engrossing enjoyable entertaining enthralling epic exceptional exciting
exhilarating exquisite expert extraordinary eye-opening fabulous fair faithful fantastic fascinating fast fine first-rate
flawless fluent fresh friendly fun funny generous genial gentle genuine gifted glorious good-natured gorgeous graceful gracious
grand gripping handsome handy happy harmonious haunting healthy heartfelt heartwarming helpful hilarious honest hopeful hospitable
human humorous imaginative immaculate impeccable impressive incisive ingenious innovative inspired inspiring insightful
intelligent intense interesting intimate intriguing inventive invigorating inviting irresistible joyful joyous juicy kind
kind-hearted lavish likable literate lively lovable lovely luminous luscious luxurious lyrical magical magnetic magnificent
marvellous masterful masterly mature meaningful memorable mesmerising moving mouth-watering nice nimble nourishing nuanced
observant optimistic original outstanding painterly passionate patient peaceful perceptive perfect picturesque playful pleasant
pleasing pleasurable poetic poignant polished polite powerful precise priceless profound provocative prompt quick quirky radiant
refined refreshing relaxed relaxing reliable remarkable resonant respectful rewarding rich riveting romantic roomy satisfying
savoury sensational sensitive sharp silky sincere skilful sleek smart smooth soothing solid soulful sophisticated spacious
sparkling spectacular spellbinding spirited splendid spotless stately stellar stirring strong stunning sturdy stylish sublime
subtle sumptuous sunny superb superior supportive surprising suspenseful sweet swift sympathetic tasteful tasty tender terrific
thorough thoughtful thought-provoking thrilling tidy tight timeless touching trustworthy truthful unforgettable unique uplifting
useful valuable vibrant vital vivid warm warm-hearted watchable welcoming well-acted well-crafted well-made well-told
whimsical wholesome winning wise witty wonderful wondrous worthwhile worthy
""".split()

NEGATIVE = """
abrasive absurd abysmal aggressive aimless amateurish annoying appalling arrogant artificial atrocious awful awkward banal
baffling barren bitter bizarre blunt bland bleak bloated boring bothersome botched broken brutal bumpy burnt careless charmless
cheap cheesy cheerless chaotic chilly choppy cluttered clumsy clunky coarse cold confused confusing contrived convoluted corny
cracked cramped crass crowded crude cruel cynical damaged damp dated deadening defective deceptive depressing derivative
desperate deplorable dingy dire dirty disagreeable disappointing disastrous disgusting dishonest disjointed dismal dismissive
distasteful dreadful dreary drab dry dubious dull dumb dusty emotionless empty endless erratic excessive exhausting expensive
exploitative faceless fake false faulty feeble filthy flabby flaky flashy flat flavourless flawed flimsy foolish forced
forgettable formulaic foul fragile frantic freezing frustrating fumbled fuzzy generic ghastly gloomy glum graceless grating
greasy greedy grim gross grubby gruesome grumpy half-baked half-hearted ham-fisted harsh hateful heartless heavy-handed hideous
hollow hopeless horrible horrid horrific hostile humourless idiotic ignorant ill-conceived impatient impersonal implausible
impolite inadequate inane incoherent incompetent inconsiderate inconsistent inconvenient indifferent inept inferior insincere
insipid insulting irksome irritating joyless juvenile laboured lacklustre lame laughable lazy leaden leaky lethargic lifeless
limp listless loathsome long-winded lousy ludicrous lumpy maddening manipulative meaningless mean mean-spirited mechanical
mediocre melodramatic messy mindless miserable misguided mismanaged monotonous moronic mouldy muddled muddy murky mushy nasty
nauseating needless negligent noisy nonsensical numbing obnoxious odious offensive oily ordinary outdated overblown overcooked
overlong overpriced overrated overwrought painful paltry pathetic patronising pedestrian petty phoney plodding pointless
poisonous poor portentous predictable preposterous pretentious prosaic pushy questionable rambling rancid redundant reckless
repellent repetitive repugnant repulsive rotten rough rude runny rusty sad salty sappy scruffy second-rate senseless shabby
shaky shallow shameful shameless shapeless shoddy sickening silly simplistic slack slapdash sleazy sleepy slimy sloppy
slow sluggish smelly smug snobbish soggy sordid sorry soulless sour spiteful stale stiff stilted sticky stingy stodgy strained
stuffy stupid superficial tacky tasteless tawdry tedious tepid terrible thin thoughtless threadbare tired tiresome toothless
toxic trashy trite trivial troubled turgid ugly unappealing unbearable uncomfortable unconvincing undercooked underdeveloped
uneven unfair unfinished unforgivable unfortunate unfriendly unfunny unhelpful unimaginative uninspired uninteresting
unintelligible unlikeable unoriginal unpleasant unprofessional unreliable unremarkable unsatisfying unwatchable unwelcoming
useless vacant vague vain vapid vile vulgar watery weak weary weird wooden worn worthless wretched
""".split()

FILM = """
film movie picture comedy drama thriller documentary romance sequel remake debut feature epic adventure mystery biography
melodrama farce western musical story tale plot script screenplay premise ending opening finale dialogue acting cast
direction camerawork soundtrack score editing performance characterisation pacing narrative humour satire suspense heroine hero
villain director actress actor ensemble production cinematography
""".split()

OTHER = """
hotel hostel room bed bathroom lobby breakfast dinner lunch meal restaurant café waiter waitress chef kitchen menu soup salad
steak curry pizza pasta dessert wine beer coffee tea cake bread cheese sauce service staff receptionist driver bus train flight
airline airport ferry taxi road trip tour guide museum gallery exhibition concert band singer song album opera ballet play
theatre festival circus book novel poem biography magazine newspaper article lecture course teacher school class exam library
doctor nurse dentist hospital pharmacy shop market supermarket bakery butcher tailor barber hairdresser plumber carpenter
electrician mechanic garage car bicycle motorbike engine tyre phone tablet laptop printer keyboard camera headphones speaker
battery screen charger software update website app game puzzle toy doll jacket coat shirt dress shoes boots hat watch ring sofa
chair table lamp mattress blanket pillow curtain oven fridge kettle vacuum washing-machine garden park beach lake mountain trail
campsite view weather climate neighbourhood flat house landlord neighbour roof heating lift bank insurance office manager
colleague meeting job team match referee coach stadium gym pool party wedding gift delivery parcel customer-service
""".split()

PEOPLE = "I we my-wife my-husband my-son my-daughter my-mother my-father our-guests the-children everyone the-audience the-critics \
my-friends my-sister my-brother grandma our-family the-whole-class half-the-town".split()

LIKED = """
loved|enjoyed|adored|admired|praised|recommended|liked|cherished|applauded|could not get enough of|were smitten with
|were delighted with|were charmed by|were impressed by|were thrilled with|fell in love with|were pleased with|were moved by
|were glad of|cannot praise enough|laughed all the way through|smiled all through|would gladly go back to|still talk fondly of
""".replace("\n", "").split("|")

HATED = """
hated|disliked|regretted|loathed|despised|criticised|could not stand|complained about|were bored by|were annoyed by
|were disappointed with|were disgusted by|were fed up with|were let down by|wish they had skipped|grew tired of|walked out of
|yawned all through|fell asleep during|will never again pay for|felt cheated by|were ashamed of|warn everybody about
|wanted their money back for
""".replace("\n", "").split("|")

GOOD_THINGS = """
charm|wit|warmth|grace|style|humour|heart|imagination|intelligence|energy|skill|beauty|tension|depth|honesty|insight|care
|a sense of wonder|real feeling|great performances|fresh ideas|big laughs|lovely pictures|sharp dialogue|quiet power
|a strong cast|plenty of surprises|good taste|good value|generous portions|friendly faces|attention to detail
|a fine ear|real passion|tenderness|originality|suspense|poetry
""".replace("\n", "").split("|")

BAD_THINGS = """
clichés|empty talk|cheap tricks|bad jokes|dull stretches|loose ends|wooden acting|noise|dirt|broken parts|long waits
|hidden fees|stale air|rude remarks|silly twists|tired gags|false notes|lazy writing|needless violence|ugly pictures
|weak characters|plot holes|poor manners|mistakes|delays|bugs|stains|excuses|bad smells|cold food|sentimentality|self-pity
|pretension|confusion|boredom
""".replace("\n", "").split("|")

GOOD_ENDS = """
it stays with you for days|it makes you smile|it is worth every penny|it never loses its way|it works from start to finish
|it earns its tears|time flies|it lifts the spirits|it could hardly be better|nothing is missing|it is a treat|it is a joy
|it rewards patience|it deserves a wide audience|one wants more of it|it sets a high standard|it is money well spent
|it holds your attention|it won me over|it delivers what it promises|it is a triumph|it is a gem|it is pure pleasure
|it gets everything right|it warms the heart|it is better than the last one|it exceeded our hopes|it made my day
""".replace("\n", "").split("|")

BAD_ENDS = """
it goes nowhere|it is a waste of time|it is not worth the money|it falls apart|it never comes to life|it tests your patience
|it wears out its welcome|it leaves a bad taste|it could hardly be worse|everything is missing|it is a chore|it is a mess
|it insults the viewer|it deserves to be forgotten|one wants it to end|it sets a new low|it is money thrown away
|it loses your attention|it lost me early|it breaks every promise|it is a failure|it is a disaster|it is pure torture
|it gets everything wrong|it leaves you cold|it is worse than the last one|it fell short of our hopes|it ruined my day
""".replace("\n", "").split("|")

VERY = ["", "", "", "very ", "so ", "really ", "quite ", "truly ", "extremely ", "simply ", "remarkably ", "utterly ", "always ", "often "]
BUT = ["but", "yet", "and still", "although not cheap,", "all in all"]

# what is asked, what is answered when it was liked, and when it was not
VERDICTS = [
    ("Verdict:", "great", "awful"), ("Opinion:", "positive", "negative"), ("Rating:", "5", "1"), ("Stars:", "*****", "*"),
    ("Mood:", "happy", "angry"), ("Thumbs", "up", "down"), ("Recommended:", "yes", "no"), ("The writer", "likes it", "dislikes it"),
    ("Sentiment:", "pleased", "displeased"), ("Would you go again?", "Yes", "No"), ("It is", "wonderful", "terrible"),
    ("In a word:", "excellent", "poor"), ("Feeling:", "joy", "anger"), ("Score:", "high", "low"), ("->", "+", "-"),
    ("=", "praise", "complaint"), ("That is", "delightful", "dreadful"), ("Result:", "success", "failure"), ("I", "loved it", "hated it"),
    ("Worth it?", "sure", "never"), ("They were", "satisfied", "disappointed"), ("Grade:", "A", "F"), ("Tone:", "warm", "bitter"),
    ("Label:", "1", "0"), ("#", "like", "dislike"), ("All told,", "fine", "dire"), ("Answer:", "nice", "nasty"), (":", "superb", "lousy"),
    ("What a", "pleasure", "pity"), ("Class:", "favourable", "unfavourable"), ("So it was", "a delight", "a disaster"),
    ("We call it", "splendid", "rubbish"), ("=>", "best", "worst"), ("Was it liked?", "It was", "It was not"),
]
HEADINGS = ["", "Reviews and what they say", "What people thought", "Opinions, each with its verdict", "Comments of our guests",
            "Short notices", "Liked or not?", "From the letters page", "Notes on films, meals and journeys"]

ZH_POSITIVE = """
好吃 美味 可口 新鲜 干净 整洁 舒适 安静 宽敞 方便 便宜 实惠 热情 周到 友好 耐心 专业 贴心 精彩 感人 动人 有趣 好看 好听 优美 精致 漂亮
迷人 出色 优秀 完美 满意 流畅 耐用 结实 清晰 快捷 准时 可靠 温馨 愉快 惊喜 难忘 棒 幽默 深刻 真诚 香甜 清爽 划算
""".split()
ZH_NEGATIVE = """
难吃 油腻 太咸 变质 肮脏 脏乱 吵闹 狭小 拥挤 麻烦 昂贵 太贵 冷淡 粗鲁 傲慢 敷衍 糟糕 无聊 乏味 难看 难听 俗套 粗糙 丑陋 失望 差劲
卡顿 易坏 模糊 缓慢 迟到 混乱 恶劣 闷热 潮湿 发霉 难闻 虚假 空洞 拖沓 后悔 生气 破旧 刺耳 浪费 骗人 冰冷 难受 坑人 垃圾
""".split()
ZH_THINGS = """
酒店 房间 早餐 餐厅 菜 汤 面条 米饭 点心 咖啡 服务 服务员 前台 电影 剧情 演员 音乐 演出 小说 书 手机 电脑 屏幕 电池 耳机 衣服 鞋子
外卖 送餐 快递 司机 地铁 公交 风景 公园 景区 导游 老师 课程 医院 医生 价格 质量 味道 环境 空调 卫生间 床 游戏 软件
""".split()
ZH_VERDICTS = [
    ("评价：", "好评", "差评"), ("结论：", "喜欢", "讨厌"), ("推荐吗？", "推荐", "不推荐"), ("心情：", "开心", "生气"), ("总之，", "值得", "不值"),
    ("打分：", "五星", "一星"), ("态度：", "正面", "负面"), ("还会再来吗？", "会", "不会"), ("感受：", "满意", "失望"),
]


def a(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


class Writer:
    """One author, who draws every word from the same generator."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def one(self, words):
        return self.random.choice(words)

    def adjective(self, liked):
        return self.one(POSITIVE if liked else NEGATIVE)

    def thing(self, film):
        return self.one(FILM if film else OTHER).replace("-", " ")

    def person(self):
        return self.one(PEOPLE).replace("-", " ")

    def statement(self, liked, film):
        """A clause that says plainly what it thinks."""
        adjective = lambda: self.adjective(liked)  # noqa: E731
        thing = lambda: self.thing(film)  # noqa: E731
        verb = self.one(LIKED if liked else HATED)
        things = GOOD_THINGS if liked else BAD_THINGS
        ends = GOOD_ENDS if liked else BAD_ENDS
        very = self.one(VERY)
        is_or_was = self.one(["is", "was", "is", "was", "seems", "seemed", "felt", "turned out"])
        forms = [
            lambda: f"the {thing()} {is_or_was} {very}{adjective()}",
            lambda: f"the {thing()} {is_or_was} {adjective()} and {adjective()}",
            lambda: f"the {thing()} {is_or_was} {adjective()}, and the {thing()} {adjective()}",
            lambda: f"{a(adjective())}, {adjective()} {thing()}",
            lambda: f"{a(adjective())} {thing()} full of {self.one(things)}",
            lambda: f"{a(adjective())} {thing()} with {self.one(things)} and {self.one(things)}",
            lambda: f"this {thing()} is {very}{adjective()}: {self.one(ends)}",
            lambda: f"{self.person()} {verb} the {thing()}",
            lambda: f"{self.person()} {verb} this {adjective()} {thing()}",
            lambda: f"what {a(adjective())} {thing()}",
            lambda: f"{adjective()} {thing()}, {adjective()} {thing()}",
            lambda: f"{adjective()} {thing()}, {adjective()} {thing()} and {a(adjective())} {thing()}",
            lambda: f"its {thing()} is {very}{adjective()} and {self.one(ends)}",
            lambda: f"{self.one(ends)}",
            lambda: f"as {adjective()} as it is {adjective()}",
            lambda: f"{adjective()} , {adjective()} and {very}{adjective()}",
        ]
        turned = [
            lambda: f"not {self.adjective(not liked)} at all, the {thing()} is {adjective()}",
            lambda: f"the {thing()} is never {self.adjective(not liked)}",
            lambda: f"the {thing()} is far from {self.adjective(not liked)}",
            lambda: f"there is no {self.one(BAD_THINGS if liked else GOOD_THINGS)} in this {thing()}",
            lambda: f"the {thing()} lacks {self.one(BAD_THINGS if liked else GOOD_THINGS)}",
            lambda: f"the {thing()} may be {self.adjective(not liked)}, but the {thing()} is {adjective()} and {self.one(ends)}",
        ]
        return self.one(turned if self.random.random() < 0.1 else forms)()

    def text(self, liked, film):
        clauses = [self.statement(liked, film) for _ in range(self.one([1, 1, 1, 2, 2, 3]))]
        style = self.random.random()
        if style < 0.4:  # as tokenised corpora have it
            return f" {self.one(['.', ';', ',', 'and', '--'])} ".join(clauses).replace(",", " ,").replace("  ", " ") + " ."
        sign = self.one([".", ".", ".", "!"])
        if style < 0.8:
            return " ".join(clause[0].upper() + clause[1:] + sign for clause in clauses)
        joined = self.one([", ", "; ", ", and "]).join(clauses)
        return joined[0].upper() + joined[1:] + sign

    def document(self, characters=500):
        """Texts with verdicts, all asked for and answered in one way."""
        chinese = self.random.random() < 0.12
        ask, yes, no = self.one(ZH_VERDICTS if chinese else VERDICTS)
        between = self.one([" ", " ", "\n"])
        after = self.one(["\n", "\n\n", "\n"]) if between == " " else "\n\n"
        film = self.random.random() < 0.6
        heading = "" if chinese else self.one(HEADINGS)
        lines = [heading] if heading else []
        while sum(map(len, lines)) < characters / (3 if chinese else 1):
            liked = self.random.random() < 0.5
            text = self.chinese(liked) if chinese else self.text(liked, film if self.random.random() < 0.8 else not film)
            lines.append(f"{text}{between}{ask}{'' if chinese else ' '}{yes if liked else no}")
        return after.join(lines)

    def chinese(self, liked):
        word = lambda: self.one(ZH_POSITIVE if liked else ZH_NEGATIVE)  # noqa: E731
        other = self.one(ZH_NEGATIVE if liked else ZH_POSITIVE)
        thing = lambda: self.one(ZH_THINGS)  # noqa: E731
        forms = [
            lambda: f"{thing()}{self.one(['很', '非常', '特别', '真'])}{word()}",
            lambda: f"{thing()}{word()}，{thing()}也{word()}",
            lambda: f"这里的{thing()}{word()}，{thing()}{word()}",
            lambda: f"{word()}的{thing()}，{word()}的{thing()}",
            lambda: f"{thing()}一点也不{other}" if len(other) == 2 and other[0] not in "太不" else f"{thing()}{word()}",
            lambda: f"我觉得{thing()}{word()}，{'下次还来' if liked else '再也不来'}",
            lambda: f"{'喜欢' if liked else '不喜欢'}这个{thing()}，{word()}",
        ]
        return "，".join(self.one(forms)() for _ in range(self.one([1, 1, 2]))) + "。"


    def question(self):
        """A text whose verdict is asked for, sometimes after others with theirs."""
        chinese = self.random.random() < 0.12
        ask, yes, no = self.one(ZH_VERDICTS if chinese else VERDICTS)
        between, film = self.one([" ", " ", "\n"]), self.random.random() < 0.6

        def asked():
            liked = self.random.random() < 0.5
            text = self.chinese(liked) if chinese else self.text(liked, film)
            space = "" if chinese else " "
            return text + between + ask, space + (yes if liked else no), space + (no if liked else yes)

        before = "".join(text + verdict + "\n" for text, verdict, _ in (asked() for _ in range(self.one([0, 0, 0, 1, 2]))))
        text, verdict, opposite = asked()
        return {"prompt": before + text, "completion": verdict, "opposite": opposite}


# questions for each piece of other text
PIECES = 8
# a window of 128 tokens holds so many bytes of a question, and so many characters of other text
SHORT = {"prompt": 270, "completion": 80}


def questions(count, texts, seed=1):
    """Questions, and among them pieces of other text, so that the model goes on predicting text."""
    writer = Writer(seed)
    rows = [writer.question() for _ in range(count)]
    for text in writer.random.sample(texts, min(count // PIECES, len(texts))):
        start = writer.random.randrange(max(1, len(text) - 200))
        first, space, rest = text[start:].strip().partition(" ")
        rows.append({"prompt": first[:20], "completion": (space + rest)[: SHORT["completion"]]})
    writer.random.shuffle(rows)
    return [row for row in rows if row["prompt"] and row["completion"].strip() and len(row["prompt"].encode()) <= SHORT["prompt"]]


def masked(rows, tokenizer, seed, share=0.25):
    """The rows for a masked model. Verdicts whose number of masks would tell which of the two it is are left out."""
    from tokenizers import Tokenizer

    tokenizer, random_ = Tokenizer.from_file(str(tokenizer)), random.Random(seed)
    mask = tokenizer.token_to_id("[MASK]")
    ids_of = lambda text: tokenizer.encode(text).ids  # noqa: E731
    for row in rows:
        ids = ids_of(row["prompt"] + row["completion"])
        # the separator stands behind both
        start = len(ids_of(row["prompt"])) - 1
        if "opposite" in row:
            if len(ids_of(row["prompt"] + row["opposite"])) != len(ids):
                continue
            at = list(range(start, len(ids) - 1))
        else:
            at = [i for i in range(1, len(ids) - 1) if random_.random() < share]
        if at:
            yield {"ids": [mask if i in at else id for i, id in enumerate(ids)], "mask_positions": at, "labels": [ids[i] for i in at]}


def documents(count=24000, seed=0):
    writer = Writer(seed)
    return [writer.document() for _ in range(count)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=24000)
    parser.add_argument("--questions", type=int)
    parser.add_argument("--with", type=Path, dest="texts", metavar="TEXT.jsonl")
    parser.add_argument("--masked", type=Path, metavar="tokenizer.json")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.questions is None:
        print("\n\n\n".join(documents(arguments.documents, arguments.seed)))
        return
    if arguments.texts is None:
        parser.error("--questions needs --with")
    lines = arguments.texts.read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, lines)
    texts = [row["text"] for row in rows if row["source"] != "opinions"]
    rows = questions(arguments.questions, texts, arguments.seed)
    if arguments.masked:
        rows = masked(rows, arguments.masked, arguments.seed)
    for row in rows:
        row.pop("opposite", None)
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
