// The template language against transformers' own (goldens/), piece by piece, and against templates
// that were made to hurt.
#include "engine/text/jinja/template.h"

#include <chrono>

#include <gmock/gmock.h>

#include "tests/engine/text/golden_lines.h"

namespace kvfs::text::jinja {
namespace {

using testing::HasSubstr;

Result<std::string> rendered(const std::string& source, std::vector<Message> turns = {}) {
  KVFS_ASSIGN(const Template parsed, Template::parse(source));
  return parsed.render({std::move(turns), true, "<s>", "</s>", 0});
}

std::string shown(const std::string& source) {
  const auto text = rendered(source, {{"user", "Hi"}});
  return text ? *text : text.error().message();
}

TEST(ChatTemplates, RenderTwentyConversationsEachAsTransformersDoes) {
  const auto goldens = chats_by_template();
  const auto& conversations = goldens.at("conversations").as_array();
  ASSERT_EQ(conversations.size(), 20U);
  ASSERT_GE(goldens.at("templates").as_object().size(), 20U);
  for (const auto& [name, golden] : goldens.at("templates").as_object()) {
    const auto parsed = Template::parse(template_text(name));
    ASSERT_TRUE(parsed) << name << ": " << parsed.error().message();
    for (std::size_t i = 0; i < conversations.size(); ++i) {
      Conversation conversation;
      for (const auto& message : conversations[i].as_array()) {
        conversation.messages.push_back(
            {text_of(message.at("role")), text_of(message.at("content"))});
      }
      conversation.add_generation_prompt = i != 12 && i != 13;
      conversation.bos_token = text_of(golden.at("bos"));
      conversation.eos_token = text_of(golden.at("eos"));
      conversation.now = goldens.at("now").to_number<std::time_t>();
      const auto text = parsed->render(conversation);
      const auto& wanted = golden.at("rendered").at(i);
      if (wanted.is_null()) {
        ASSERT_FALSE(text) << name << " " << i;
        EXPECT_THAT(text.error().message(), HasSubstr("refuses the conversation"));
      } else {
        ASSERT_TRUE(text) << name << " " << i << ": " << text.error().message();
        EXPECT_EQ(*text, text_of(wanted)) << name << " " << i;
      }
    }
  }
}

TEST(Expressions, AreJinjas) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{{ 1 + 2 * 3 - 4 // 3 ** 2 }}", "7"},
      {"{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** -1 }}", "-4 2 3.5 0.5"},
      {"{{ 1.0 }} {{ 1e20 }} {{ 0.1 + 0.2 }}", "1.0 1e+20 0.30000000000000004"},
      {"{{ 1 < 2 < 3 }} {{ 3 > 2 >= 2 != 1 }} {{ not 1 == 2 }}", "True True True"},
      {"{{ 'a' ~ 1 ~ none ~ missing }}", "a1None"},
      {"{{ 'x' if false }}|{{ 'y' if 0 else 'z' }}", "|z"},
      {"{{ [1, 'a\"', \"b'\", none, true, 1.5, {'k': (1,)}] }}",
       "[1, 'a\"', \"b'\", None, True, 1.5, {'k': [1]}]"},
      {"{{ 'hello'[1:-1] }} {{ 'hello'[::-1] }} {{ [1,2,3,4][-3::2] }} {{ 'żó'[1] }}",
       "ell olleh [2, 4] ó"},
      {"{{ 'a' in 'abc' }} {{ 2 not in [1] }} {{ 'k' in {'k': 0} }} {{ 'x' in missing }}",
       "True True True False"},
      {"{{ messages[0].role }} {{ messages[0]['content'] }} {{ messages|length }}", "user Hi 1"},
      {"{{ messages[5] }}{{ messages[0].nothing }}|", "|"},
      {"{{ 'a,b,,c'.split(',') }} {{ ' x  y '.split() }} {{ 'a-b-c'.split('-', 1) }}",
       "['a', 'b', '', 'c'] ['x', 'y'] ['a', 'b-c']"},
      {"{{ '\\u3000 x\\n'.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xa'.lstrip('x') }}", "x|a|a"},
      {"{{ 'abc'.startswith(('x', 'a')) }} {{ 'ab'.endswith('b') }} {{ 'aXbX'.replace('X', '') }}",
       "True True ab"},
      {"{{ 'école'.upper() }} {{ 'a b'|title }} {{ 'aB'|capitalize }}", "ÉCOLE A B Ab"},
      {"{{ {'a': [1, 'ü\\n']} | tojson }} {{ [] | tojson }}", "{\"a\": [1, \"ü\\n\"]} []"},
      {"{{ {'a': [1]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ]\n}"},
      {"{{ missing | default('d') }} {{ '' | default('e', true) }} {{ '' | d('f') }}|", "d e |"},
      {"{{ [3, 1, 2] | sort | join('-') }} {{ ['b', 'A'] | sort }} {{ [1, 1] | unique | list }}",
       "1-2-3 ['A', 'b'] [1]"},
      {"{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"},
      {"{{ messages | map(attribute='content') | join }} {{ ['a'] | map('upper') | first }}",
       "Hi A"},
      {"{{ '7' | int + 1 }} {{ 'x' | int }} {{ 3 is odd }} {{ 3 is divisibleby 3 }}",
       "8 0 True True"},
      {"{{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1}.items() | list }}",
       "[('a', 2), ('b', 1)] [('b', 1)]"},
      {"{{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.get('b') }} {{ dict(x=1).x }}", "2 None 1"},
      {"{{ messages is sequence and messages is not string and messages[0] is mapping }}", "True"},
      {"{{ bos_token is defined }} {{ tools is none }} {{ nothing is undefined }}",
       "True True True"},
      {"{{ range(3) | list }} {{ range(5, 1, -2) | list }}", "[0, 1, 2] [5, 3]"},
      {"{{ strftime_now('%Y') | length }}", "4"},
      {"{{ 'a' 'b' + \"\\x41\\u00e9\\q\" }}", "abAé\\q"}};
  for (const auto& [source, wanted] : cases) EXPECT_EQ(shown(source), wanted) << source;
}

TEST(Statements, AreJinjas) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{% for x in [1,2,3] %}{{ loop.index }}{{ '.' if loop.last else ',' }}{% endfor %}",
       "1,2,3."},
      {"{% for x in [] %}a{% else %}none{% endfor %}", "none"},
      {"{% for x in [1,2,3,4] if x is even %}{{ x }}/{{ loop.length }} {% endfor %}", "2/2 4/2 "},
      {"{% for x in range(9) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}"
       "{% endif %}{{ x }}{% endfor %}",
       "02"},
      {"{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"},
      {"{% for x in 'añ' %}[{{ x }}]{% endfor %}", "[a][ñ]"},
      {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "1"},
      {"{% set n = namespace(x=1) %}{% for i in [1] %}{% set n.x = 2 %}{% endfor %}{{ n.x }}", "2"},
      {"{% set x %}a{{ 1 }}{% endset %}{{ x }}{% set a, b = 1, 2 %}{{ a + b }}", "a13"},
      {"{% macro m(a, b='B') %}<{{ a }}{{ b }}>{% endmacro %}{{ m(1) }}{{ m(b=3, a=2) }}",
       "<1B><23>"},
      {"{% filter upper %}ab{% endfilter %}{% generation %}c{% endgeneration %}", "ABc"},
      {"a\n  {% if true %}\n  b\n  {% endif %}\nc", "a\n  b\nc"},
      {"a \n {%- if true -%} \n b {{- 1 -}} \n c {%- endif %}", "ab1c"},
      {"{# note #}\nx{#- y -#} z\n", "xz"},
      {"a {%+ if true +%}\n b{% endif %}", "a \n b"},
      {"line\r\nend\r\n", "line\nend"},
      {"{% if false %}a{% elif 0 %}b{% else %}c{% endif %}", "c"}};
  for (const auto& [source, wanted] : cases) EXPECT_EQ(shown(source), wanted) << source;
}

TEST(Errors, NameTheLineAndTheConstruct) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\n\n{% include 'x' %}", "line 3: {% include %} is not known"},
      {"{{ 1 | frobnicate }}", "line 1: the filter frobnicate is not known"},
      {"\n{{ 1 is frobnicated }}", "line 2: the test frobnicated is not known"},
      {"{{ cycler('a') }}", "the function cycler() is not known"},
      {"{{ missing.x }}", "\"missing\" is undefined"},
      {"{{ 'a' + 1 }}", "+ between str and int"},
      {"{{ raise_exception('no tools') }}", "refuses the conversation: no tools"},
      {"{{ 1 / 0 }}", "division by zero"},
      {"{% if true %}", "wanted {% endif %}, found the template's end"},
      {"{{ 'abc }}", "the string never ends"},
      {"{{ 1", "the tag never ends"},
      {"{{ (1 }}", "a stray \"}\""},
      {"{# x", "the comment never ends"},
      {"{{ }}", "wanted a value, found the tag's end"},
      {"{% break %}", "break outside of a loop"},
      {"{{ f(*x) }}", "arguments with * are not known"},
      {"{{ 99999999999999999999 }}", "too large"},
      {"{{ 9223372036854775807 + 1 }}", "too large"},
      {"{% set x = {} %}{% set x.a = 1 %}", "\"x\" is no namespace"}};
  for (const auto& [source, why] : cases) EXPECT_THAT(shown(source), HasSubstr(why)) << source;
}

std::string repeated(const std::string& part, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += part;
  return out;
}

TEST(HostileTemplates, AreRefusedSoonAndInLittleMemory) {
  const std::string deep = "nested too deep";
  const std::string costly = "more steps or makes more text";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{{ " + repeated("(", 100'000) + "1" + repeated(")", 100'000) + " }}", deep},
      {"{{ " + repeated("[", 199) + repeated("]", 199) + " }}", deep},
      {"{{ " + repeated("not ", 100'000) + "1 }}", deep},
      {"{{ " + repeated("-", 100'000) + "1 }}", deep},
      {"{{ 1" + repeated(" + 1", 100'000) + " }}", deep},
      {"{{ x" + repeated(".x", 100'000) + " }}", deep},
      {"{{ x" + repeated("|trim", 100'000) + " }}", deep},
      {"{{ 1" + repeated(" if 1 else 1", 10'000) + " }}", deep},
      {repeated("{% if 1 %}", 50'000), deep},
      {repeated("{% for x in y %}", 50'000), deep},
      {"{{ 'a' * 1000000000000 }}", costly},
      {"{{ range(1000000000000) | length }}", costly},
      {"{% set x = 'aaaaaaaaaaaaaaaa' %}" + repeated("{% set x = x ~ x %}", 60), costly},
      {"{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}"
       "{% endfor %}{% endfor %}",
       costly},
      {"{% set x = 'a' * 10000 %}{{ x.replace('a', x) }}", costly},
      {"{% set x = 'a' * 100000 %}{{ x.strip(x) }}", costly},
      {"{% set x = [1] %}" + repeated("{% set x = [x, x] %}", 60) + "{{ x }}", costly},
      {"{% set x = [1] %}" + repeated("{% set x = [x] %}", 100) + "{{ x }}", deep},
      {"{% set x = [1] %}" + repeated("{% set x = [x, x] %}", 60) + "{{ x == (x + []) }}", costly},
      {"{% set x = [1] %}" + repeated("{% set x = x + x %}", 60), costly},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "too deep"},
      {"{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{% macro n() %}{% for i in range(99999) %}"
       "{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}{% endmacro %}"
       "{% for i in range(99999) %}{{ n() }}{% endfor %}",
       costly},
      {"{% set n = namespace() %}{% set n.n = n %}{{ n }}", deep},
      {"{% set n = namespace() %}{% set n.n = n %}{{ n | tojson }}", deep},
      {repeated("x", kMaxTemplateBytes + 1), "the most is"},
      {"\xC3", "UTF-8"}};
  for (const auto& [source, why] : cases) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_THAT(shown(source), HasSubstr(why)) << source.substr(0, 120);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5))
        << source.substr(0, 120);
  }
}

}  // namespace
}  // namespace kvfs::text::jinja
