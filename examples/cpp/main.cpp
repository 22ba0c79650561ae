// Screens photographs of the retina, without Python: one line of JSON for each, with the keys of `funduscope screen`.
//
//   screen [--threads N] [--point NAME] MODEL.onnx... [PICTURE...]
//
// Without pictures, their names are read from standard input, one a line. What each model makes of its outputs is told
// by engine/readers/. A screening aid for research, not a diagnosis and not a medical device.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <memory>

#include "measure.hpp"
#include "model.hpp"

namespace {

using nlohmann::ordered_json;

const std::vector<std::string> keys = {"name",
                                       "status",
                                       "code",
                                       "reason",
                                       "warnings",
                                       "sha256",
                                       "patient",
                                       "eye",
                                       "eye_source",
                                       "name_bytes",
                                       "width",
                                       "height",
                                       "glaucoma",
                                       "glaucoma_probability",
                                       "glaucoma_threshold",
                                       "vcdr",
                                       "disc_x",
                                       "disc_y",
                                       "disc_vertical_diameter_px",
                                       "disc_box_height_px",
                                       "disc_area_px",
                                       "cup_x",
                                       "cup_y",
                                       "cup_vertical_diameter_px",
                                       "cup_box_height_px",
                                       "cup_area_px",
                                       "fovea_x",
                                       "fovea_y",
                                       "glaucoma_network",
                                       "glaucoma_vcdr",
                                       "referable_dr",
                                       "referable_dr_probability",
                                       "referable_dr_threshold",
                                       "any_dr",
                                       "any_dr_probability",
                                       "any_dr_threshold",
                                       "glaucoma_second",
                                       "glaucoma_second_probability",
                                       "glaucoma_second_threshold",
                                       "operating_point",
                                       "model",
                                       "model_version",
                                       "model_sha256",
                                       "backend",
                                       "precision"};

struct Decision {
    std::optional<double> probability;
    std::optional<double> threshold;
    std::optional<bool> called;  // nothing: left open
};

struct Disease {
    std::string name, verdict, uncertain;
};
// in the order of the verdicts' columns; every picture with referable retinopathy has any
const std::vector<Disease> diseases = {{"referable_dr", "referable_dr", "DR_UNCERTAIN"},
                                       {"any_dr", "any_dr", "ANY_DR_UNCERTAIN"},
                                       {"glaucoma", "glaucoma_second", "GLAUCOMA_UNCERTAIN"}};

double value(const Outputs& outputs, const std::string& name) { return outputs.at(name).at<float>(0); }

double rounded(double number, int digits) {
    const double scale = std::pow(10, digits);
    return std::round(number * scale) / scale;
}

void put(ordered_json& row, const std::string& verdict, const Decision& decision) {
    if (decision.called) row[verdict] = *decision.called;
    if (decision.probability) row[verdict + "_probability"] = rounded(*decision.probability, 6);
    if (decision.threshold) row[verdict + "_threshold"] = rounded(*decision.threshold, 6);
}

void put(ordered_json& row, const std::string& structure, const Outline& own) {
    row[structure + "_x"] = rounded(own.x, 2);
    row[structure + "_y"] = rounded(own.y, 2);
    row[structure + "_vertical_diameter_px"] = rounded(own.vertical_diameter_px, 2);
    row[structure + "_box_height_px"] = rounded(own.box_height_px, 2);
    row[structure + "_area_px"] = rounded(own.area_px, 2);
}

// The multi-task model: disc, cup, fovea and glaucoma.
Decision read_multitask(const ordered_json& contract, const Outputs& outputs, const Placement& placement,
                        ordered_json& row) {
    const auto& rules = contract.at("rules");
    const auto region =
        disc_region(outputs.at("disc"), outputs.at("cup"), rules.at("disc_threshold"), rules.at("cup_threshold"));
    if (!region)
        throw Ungradable("DISC_NOT_FOUND", "no optic disc was found; is this a fundus photograph that shows one?");
    const auto disc = outline(region->disc, *region, placement), cup = outline(region->cup, *region, placement);
    put(row, "disc", *disc);

    Decision glaucoma{{}, contract.at("glaucoma_threshold").get<double>(), {}};
    const double network = value(outputs, "glaucoma");
    row["glaucoma_network"] = rounded(network, 6);
    if (cup) {
        put(row, "cup", *cup);
        const double vcdr = static_cast<double>(vertical_diameter(region->cup)) / vertical_diameter(region->disc);
        const double from_vcdr =
            logistic(rules.at("vcdr_coefficient").get<double>() * vcdr + rules.at("vcdr_intercept").get<double>());
        row["vcdr"] = rounded(vcdr, 6);
        row["glaucoma_vcdr"] = rounded(from_vcdr, 6);
        glaucoma.probability = (network + from_vcdr) / 2;
        glaucoma.called = *glaucoma.probability >= *glaucoma.threshold;
    } else {
        row["warnings"].push_back("CUP_NOT_FOUND");
    }
    put(row, "glaucoma", glaucoma);

    const cv::Mat& saliency = outputs.at("fovea");
    double peak = 0;
    cv::minMaxLoc(saliency, nullptr, &peak);
    const auto centre = peak >= rules.at("fovea_min_peak").get<double>()
                            ? centre_of_mass(saliency, rules.at("fovea_mode") == "robust")
                            : std::nullopt;
    if (centre) {
        const cv::Point2d fovea = placement.to_photo(centre->x, centre->y);
        row["fovea_x"] = rounded(fovea.x, 2);
        row["fovea_y"] = rounded(fovea.y, 2);
        const double across = disc->x - fovea.x, down = disc->y - fovea.y;  // the disc lies on the nose's side
        if (std::abs(across) >= std::max(disc->vertical_diameter_px, std::abs(down))) {
            row["eye"] = across > 0 ? "right" : "left";
            row["eye_source"] = "picture";
        }
    } else {
        row["warnings"].push_back("FOVEA_NOT_FOUND");
    }
    return glaucoma;
}

// The classifier: diseases, each with an operating point and a band of doubt.
void read_classifier(const ordered_json& contract, const std::string& point, const Outputs& outputs,
                     const Decision& glaucoma, ordered_json& row) {
    const auto& parts = contract.at("decisions");
    std::map<std::string, Decision> decisions;
    for (const Disease& disease : diseases) {
        if (!parts.contains(disease.name)) continue;
        const auto& at = parts.at(disease.name).at("points").at(point);
        const double probability = value(outputs, disease.name), threshold = at.at("threshold");
        decisions[disease.name] = {probability, threshold, decide(probability, threshold, at.at("uncertain_logit"))};
    }
    if (decisions.count("referable_dr") && decisions.count("any_dr")) {
        const auto within = decisions["referable_dr"].called;
        auto& wider = decisions["any_dr"].called;
        if (!wider.value_or(false) && within != false) wider = within;
    }
    for (const Disease& disease : diseases) {
        if (!decisions.count(disease.name)) continue;
        put(row, disease.verdict, decisions[disease.name]);
        if (!decisions[disease.name].called) row["warnings"].push_back(disease.uncertain);
    }
    row["operating_point"] = point;
    if (decisions.count("glaucoma") && glaucoma.probability) {
        const Decision& second = decisions["glaucoma"];
        const double seen = from_threshold(*glaucoma.probability, *glaucoma.threshold);
        const double other =
            from_threshold(*second.probability, parts.at("glaucoma").at("points").at("balanced").at("threshold"));
        if (second.called == !*glaucoma.called || std::abs(seen - other) > contract.at("disagreement").get<double>())
            row["warnings"].push_back("GLAUCOMA_DISAGREEMENT");
    }
}

// Of a classifier that judges pictures: their scores into the row. One with a fault is refused before anything is
// decided. Gives: the diseases for which the picture is too coarse.
std::vector<std::string> grade(const ordered_json& contract, const Outputs& outputs, const Placement& placement,
                               ordered_json& row) {
    if (!contract.contains("quality")) return {};
    const auto& part = contract.at("quality");
    std::string fault;  // the first that is found: contracts have the gravest first
    for (const auto& [name, threshold] : part.at("thresholds").items()) {
        const double score = value(outputs, name);
        row[name] = rounded(score, 6);
        if (fault.empty() && score >= threshold.get<double>()) fault = name;
    }
    if (!fault.empty()) {
        std::string code = fault;  // the code is the score's name in capitals
        std::transform(code.begin(), code.end(), code.begin(), [](unsigned char own) { return std::toupper(own); });
        throw Ungradable(code, "the picture is not fit to be read: " + fault);
    }
    const double size = contract.at("geometry").at("size");
    const double side = size / std::max(placement.scale_x, placement.scale_y);  // of the field of view, px of the photo
    const auto least = part.value("least_px", ordered_json::object());
    std::vector<std::string> coarse;
    for (const auto& [disease, px] : least.items())
        if (side < px.get<double>()) coarse.push_back(disease);
    if (!coarse.empty() && coarse.size() == least.size())
        throw Ungradable("LOW_RESOLUTION",
                         "the retina has too few pixels for any decision; send the camera's own picture");
    return coarse;
}

// Nothing is decided on diseases for which the picture is too coarse.
void leave_open(const std::vector<std::string>& coarse, ordered_json& row) {
    for (const std::string& disease : coarse)
        for (const std::string& verdict : {disease, disease + "_second"})
            if (row.contains(verdict)) row[verdict] = nullptr;
    if (!coarse.empty()) row["warnings"].push_back("LOW_RESOLUTION");
}

struct Screener {
    std::unique_ptr<Model> multitask, classifier;  // one of them may be missing
    std::string point;

    std::vector<Model*> models() const {
        std::vector<Model*> found;
        for (const auto* own : {&multitask, &classifier})
            if (*own) found.push_back(own->get());
        return found;
    }

    ordered_json operator()(const std::string& path) const {
        ordered_json row;
        for (const std::string& key : keys) row[key] = nullptr;
        row["name"] = path;
        row["status"] = "ok";
        row["warnings"] = ordered_json::array();
        for (const char* key : {"model", "model_version", "model_sha256", "backend", "precision"})
            row[key] = ordered_json::array();
        for (const Model* own : models()) {
            row["model"].push_back(own->contract.at("name"));
            row["model_version"].push_back(own->contract.at("version"));
            row["model_sha256"].push_back(own->contract.at("sha256"));
            row["backend"].push_back("onnxruntime");
            row["precision"].push_back(own->contract.at("precision"));
        }
        const ordered_json empty = row;
        try {
            screen(path, row);
        } catch (const Refused& refused) {
            reject(row, empty, refused);
        } catch (const cv::Exception&) {
            reject(row, empty, Refused("DAMAGED", "the picture cannot be decoded"));
        }
        return row;
    }

private:
    void screen(const std::string& path, ordered_json& row) const {
        Bytes data = read_file(path);
        row["sha256"] = sha256(data);
        Photo photo(std::move(data));
        std::vector<Prepared> prepared;
        for (const Model* own : models()) prepared.push_back(prepare(photo, own->geometry));
        row["width"] = photo.width;
        row["height"] = photo.height;
        expect_colours(prepared[0].image);
        if (!expect_round(prepared[0].image)) row["warnings"].push_back("NOT_ROUND");
        std::vector<Outputs> outputs;
        for (size_t k = 0; k < prepared.size(); ++k) outputs.push_back(models()[k]->run(prepared[k].image));
        std::vector<std::string> coarse;
        if (classifier) coarse = grade(classifier->contract, outputs.back(), prepared.back().placement, row);
        Decision glaucoma;
        if (multitask) glaucoma = read_multitask(multitask->contract, outputs.front(), prepared.front().placement, row);
        if (classifier) read_classifier(classifier->contract, point, outputs.back(), glaucoma, row);
        leave_open(coarse, row);
    }

    // What was found so far is taken back, but for what is known of any picture.
    static void reject(ordered_json& row, const ordered_json& empty, const Refused& refused) {
        for (const auto& [key, before] : empty.items())
            if (key != "sha256" && key != "warnings") row[key] = before;
        row["status"] = dynamic_cast<const Ungradable*>(&refused) ? "ungradable" : "error";
        row["code"] = refused.code;
        row["reason"] = refused.what();
    }
};

bool is_model(const std::string& path) { return path.size() > 5 && path.substr(path.size() - 5) == ".onnx"; }

int run(const std::vector<std::string>& arguments) {
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "funduscope");
    Screener screener;
    std::vector<std::string> pictures, files;
    int threads = 0;
    for (size_t k = 0; k < arguments.size(); ++k) {
        const std::string& own = arguments[k];
        if (own == "--threads" && k + 1 < arguments.size())
            threads = std::stoi(arguments[++k]);
        else if (own == "--point" && k + 1 < arguments.size())
            screener.point = arguments[++k];
        else
            (is_model(own) ? files : pictures).push_back(own);
    }
    for (const std::string& path : files) {
        auto model = std::make_unique<Model>(env, path, threads);
        const std::string kind = model->contract.at("kind");
        if (kind != "multi-task" && kind != "classifier")
            throw std::runtime_error(path + ": a kind of model that is not read: " + kind);
        auto& place = kind == "classifier" ? screener.classifier : screener.multitask;
        if (place) throw std::runtime_error(path + ": a second model of the kind " + kind);
        place = std::move(model);
    }
    if (files.empty()) throw std::runtime_error("screen [--threads N] [--point NAME] MODEL.onnx... [PICTURE...]");
    if (screener.classifier && screener.point.empty()) screener.point = screener.classifier->contract.at("point");
    if (threads) cv::setNumThreads(threads);

    const auto print = [&](const std::string& path) {
        std::cout << screener(path).dump(-1, ' ', false, ordered_json::error_handler_t::replace) << std::endl;
    };
    for (const std::string& path : pictures) print(path);
    for (std::string path; pictures.empty() && std::getline(std::cin, path);) print(path);
    return 0;
}

}  // namespace

int main(int count, char** words) {
    // ONNX Runtime's releases send to their makers what is run, unless this is said first; on Windows it is _putenv_s
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    try {
        return run({words + 1, words + count});
    } catch (const std::exception& error) {
        std::cerr << error.what() << std::endl;
        return 3;
    }
}
